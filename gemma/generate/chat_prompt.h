#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <gemma/text/tokenizer.h>

namespace gemma {

/// The tokens of a chat, turn by turn, as the chat templates of Gemma 1, 2 and 3 have them. A turn
/// of the user:
///
///     <start_of_turn>user
///     text<end_of_turn>
///     <start_of_turn>model
///
/// Texts are taken without blanks around them. What looks like a marker in a text stays text: it
/// cannot begin or end a turn.
class ChatPrompt {
 public:
  /// The tokenizer has to outlive this. Throws std::invalid_argument when it has no turns.
  explicit ChatPrompt(const Tokenizer& tokenizer);

  /// The first turn, with bos. `system`, unless it is empty, comes in front of the text.
  std::vector<int64_t> first(std::string_view text, std::string_view system = {}) const;

  /// A later turn: what ends the model's answer, and the user's next text.
  std::vector<int64_t> next(std::string_view text) const;

  /// The token that ends a turn.
  int64_t end_of_turn() const;

 private:
  std::vector<int64_t> encode(std::string_view before, const std::string& text, bool bos) const;

  const Tokenizer& tokenizer_;
};

}  // namespace gemma
