#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <gemma/text/tokenizer.h>

namespace gemma {

/// Turns tokens into text one after the other, in whole UTF-8 characters: a character that is
/// spread over several tokens comes with its last. All the pieces together are what decode() makes
/// of all the tokens.
class StreamDecoder {
 public:
  /// The tokenizer has to outlive this.
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  /// The text that `token` completes; empty if none.
  std::string add(int64_t token);

  /// What is left: a character that was never completed, as the tokenizer shows it.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::vector<int64_t> tokens_;  // From some token on whose text is out already.
  size_t shown_ = 0;             // So many of them.
};

}  // namespace gemma
