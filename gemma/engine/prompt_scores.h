#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include <gemma/engine/engine.h>
#include <gemma/engine/text.h>
#include <gemma/text/stream_decoder.h>
#include <gemma/text/tokenizer.h>

namespace gemma {

/// What a model expects of the tokens of a prompt, made while they go through it, in parts.
class PromptScores {
 public:
  /// Each token comes with so many of the likeliest in its place. The tokenizer has to outlive
  /// this.
  PromptScores(int64_t top, const Tokenizer& tokenizer) : top_(top), decoder_(tokenizer) {}

  /// Logits of hidden states: [B, E] -> float32 [B, V] on the CPU, which may be changed.
  using LogitsOf = std::function<at::Tensor(const at::Tensor& hidden)>;

  /// Takes the hidden states [T, E] of those T tokens of the text that are done last -> whether
  /// logits are finite. What is known is not made again.
  bool add(const Text& text,
           const at::Tensor& hidden,
           const LogitsOf& logits_of,
           std::optional<double> softcap);

  /// Whether there are some for all tokens of the prompt.
  bool is_complete(const Text& text) const { return std::ssize(tokens_) == text.prompt_size(); }
  /// Those that there are.
  const std::vector<GeneratedToken>& tokens() const { return tokens_; }

 private:
  void add_token(int64_t token, float logprob, std::vector<TokenLogprob> top);

  int64_t top_;
  StreamDecoder decoder_;
  std::vector<GeneratedToken> tokens_;
};

}  // namespace gemma
