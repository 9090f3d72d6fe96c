#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gemma/generate/prompt_tokens.h>
#include <gemma/text/tokenizer.h>

namespace gemma {

enum class ChatRole {
  kSystem,  ///< What holds for the whole chat.
  kUser,
  kModel,
};

/// By its name: "system" or "developer", "user", "assistant" or "model". Throws
/// std::invalid_argument for others.
ChatRole chat_role(std::string_view name);

/// An image in a text.
struct ChatImage {
  size_t at;  ///< Before which of the text's bytes it stands.
  /// What it becomes, counted from its own first token.
  PromptTokens tokens;
};

struct ChatMessage {
  ChatRole role;
  std::string text;
  /// In order. None of the system's.
  std::vector<ChatImage> images = {};
};

/// The tokens of a chat, as the chat templates of Gemma 1, 2 and 3 and of FunctionGemma have them.
/// A turn of the user:
///
///     <start_of_turn>user
///     text<end_of_turn>
///     <start_of_turn>model
///
/// Texts, also those between images, are taken without blanks around them. What looks like a marker
/// in a text stays text: it cannot begin or end a turn. The system's text is put in front of the
/// user's first, as it is, with an empty line between; to FunctionGemma it is a turn of the
/// developer's. (The templates of Gemma 1 and 2 refuse a system, and all of them let a text forge a
/// turn.)
class ChatPrompt {
 public:
  /// The tokenizer has to outlive this. Throws std::invalid_argument when it has no turns.
  explicit ChatPrompt(const Tokenizer& tokenizer);

  /// A whole chat, with bos, up to where the model's next words come. Messages of the same role in
  /// a row are one turn, with an empty line between them. Where the last one is the model's, it
  /// goes on with that. Throws std::invalid_argument unless the messages begin with the system's,
  /// if there are any, then the user's.
  std::vector<int64_t> encode(std::span<const ChatMessage> messages) const;
  /// The same of messages with images.
  PromptTokens encode_with_images(std::span<const ChatMessage> messages) const;

  /// The first turn, with bos. `system`, unless it is empty, is the system's text. `images` are
  /// tokens that come in front of the user's.
  std::vector<int64_t> first(std::string_view text,
                             std::string_view system = {},
                             std::span<const int64_t> images = {}) const;

  /// A later turn: what ends the model's answer, and the user's next text.
  std::vector<int64_t> next(std::string_view text, std::span<const int64_t> images = {}) const;

  /// The tokens that end the model's turn, besides eos.
  std::vector<int64_t> stop_ids() const;

 private:
  const Tokenizer& tokenizer_;
};

}  // namespace gemma
