#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gemma/text/tokenizer.h>

namespace gemma {

/// Whether the tokenizer has this piece.
bool has_piece(const Tokenizer& tokenizer, std::string_view piece);

/// The tokens of a prompt, as it is put together of markers and texts.
class PromptBuilder {
 public:
  /// The tokenizer has to outlive this. Begins with bos, or with nothing.
  PromptBuilder(const Tokenizer& tokenizer, bool bos);

  /// A piece of the vocabulary, such as "<start_of_turn>". It has to be there.
  void add_marker(std::string_view piece);

  /// Text, which goes on where the text before it ends. What looks like a marker in it stays text.
  void add_text(std::string_view text);

  /// Tokens as they are, such as an image's -> how many are before them.
  int64_t add_ids(std::span<const int64_t> ids);

  /// All tokens so far.
  std::vector<int64_t> take();

 private:
  void flush();

  const Tokenizer& tokenizer_;
  std::vector<std::string_view> markers_;  // Those that the tokenizer has.
  std::vector<int64_t> ids_;
  std::string text_;  // Not among the tokens yet.
};

}  // namespace gemma
