#pragma once

#include <cstdint>

#include <torch/types.h>

#include <gemma/modules/recurrentgemma/cache.h>

// Which keys a token sees, and where an attention block keeps them. Shapes: B batch, T tokens, W
// window, D head width.
namespace gemma::recurrentgemma {

/// recurrentgemma/torch/modules.py: _compute_forward_pass_mask. A token sees itself and the
/// `window` tokens before it, as far as its document reaches; padding on the left is a document.
/// segment_pos [B, T] -> bool [B, T, T].
torch::Tensor forward_pass_mask(const torch::Tensor& segment_pos, int64_t window);

/// recurrentgemma/torch/modules.py: _compute_cache_mask. Over the cache and then the `length` new
/// tokens: num_tokens [B] -> bool [B, length, window + length].
torch::Tensor cache_mask(int64_t length, const torch::Tensor& num_tokens, int64_t window);

/// recurrentgemma/torch/modules.py: _attention_cache_from_prompt. The last W of keys and values
/// [B, T, 1, D], each in its place.
AttentionBlockCache cache_from_prompt(const torch::Tensor& keys,
                                      const torch::Tensor& values,
                                      const torch::Tensor& segment_pos,
                                      int64_t window);

/// recurrentgemma/torch/modules.py: _update_attention_cache. Writes one more token into the cache's
/// own tensors; W or more replace it. Throws c10::ValueError for a number in between.
AttentionBlockCache updated_cache(const torch::Tensor& keys,
                                  const torch::Tensor& values,
                                  const torch::Tensor& segment_pos,
                                  const AttentionBlockCache& cache);

}  // namespace gemma::recurrentgemma
