#pragma once

#include <cstdint>

#include <gemma/models/language_model.h>

namespace gemma {

/// What a model would say after each token of a text, likeliest first.
struct LikelyTokens {
  at::Tensor ids;            ///< int64 [T, n].
  at::Tensor probabilities;  ///< float32 [T, n].
};

/// The logit lens: what the model would say if the residual after one of its layers, [T, E], were
/// that after the last, through the final norm and the head. n is `count`, but not more than the
/// vocabulary. Logits of some rows at a time are in memory.
LikelyTokens logit_lens(LanguageModel model, const at::Tensor& residual, int64_t count);

}  // namespace gemma
