#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gemma/text/tokenizer.h>

namespace gemma {

/// The tokens of a prompt that asks for what is missing between two texts (fill in the middle), as
/// CodeGemma was trained on them:
///
///     <|fim_prefix|>what is before<|fim_suffix|>what is after<|fim_middle|>
///
/// The texts are taken as they are, blanks and line breaks included. What looks like a marker in
/// them stays text.
class FimPrompt {
 public:
  /// The tokenizer has to outlive this. Throws std::invalid_argument when it lacks the markers.
  explicit FimPrompt(const Tokenizer& tokenizer);

  /// The tokens, bos first. Each of `files`, other files that the model is to know of, stands in
  /// front, and <|file_separator|> after it. Throws std::invalid_argument for files where the
  /// tokenizer has no <|file_separator|>.
  std::vector<int64_t> encode(std::string_view prefix,
                              std::string_view suffix,
                              std::span<const std::string> files = {}) const;

  /// The tokens that end the missing text, besides eos: the markers.
  std::vector<int64_t> stop_ids() const;

 private:
  const Tokenizer& tokenizer_;
};

}  // namespace gemma
