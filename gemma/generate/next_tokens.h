#pragma once

#include <ATen/core/Tensor.h>

#include <gemma/generate/loops.h>
#include <gemma/models/language_model.h>

namespace gemma {

/// Samples the next token of each text of a request, and notices logits that are no numbers.
class NextTokens {
 public:
  /// Both have to outlive this.
  NextTokens(LanguageModelImpl& model, const GenerateRequest& request);

  /// hidden_states [B, L, E], output_positions [1] (an index into L) -> [B] int64. Throws
  /// std::runtime_error, which says why and what to do, when logits are NaN or infinite. On a GPU
  /// that is left to check(), as looking at a number waits for all that was computed before.
  at::Tensor sample(const at::Tensor& hidden_states, const at::Tensor& output_positions);

  /// Throws as `sample`, for all logits so far.
  void check() const;

 private:
  [[noreturn]] void explain(bool finite_before_temperature) const;
  bool are_finite_without_temperature(const at::Tensor& hidden_states,
                                      const at::Tensor& output_positions) const;

  LanguageModelImpl& model_;
  const GenerateRequest& request_;
  SamplingParams params_;
  at::Tensor sum_;  // Of all logits so far: NaN or infinite if any is.
};

}  // namespace gemma
