#pragma once

#include <cstdint>
#include <optional>

#include <torch/types.h>

namespace gemma {

// The rows that generate() in model.py takes from its [S, S] masks: 0 where a key may be seen,
// -2.3819763e38 (rounded to the default dtype, as there) elsewhere.

/// Key j is seen from position i if j <= i.
/// positions [L] int64 -> float32 [1, 1, L, max_seq_len] on the same device.
torch::Tensor causal_mask(const torch::Tensor& positions, int64_t max_seq_len);

/// Key j is seen from position i if i - window < j <= i: `window` keys, i itself included.
/// Shapes as above.
torch::Tensor sliding_window_mask(const torch::Tensor& positions,
                                  int64_t max_seq_len,
                                  int64_t window);

// gemma3_model.py: create_attention_mask.

/// The image that each token belongs to, counted from 1, and 0 for text: an image begins where a
/// token of one follows text. is_image [B, S] bool -> [B, S] int64.
torch::Tensor image_blocks(const torch::Tensor& is_image);

/// Key j is seen from position i if j <= i or both belong to one image, and with a window only if
/// j > i - window. positions [L] int64, blocks [B, S] -> bool [B, 1, L, S].
torch::Tensor visible_keys(const torch::Tensor& positions,
                           const torch::Tensor& blocks,
                           std::optional<int64_t> window = std::nullopt);

// modeling_paligemma.py: PaliGemmaModel.forward.

/// Key j is seen from position i if both belong to the prefix, or j <= i, with a window only if
/// j > i - window. positions [L] int64, is_prefix [B, S] bool -> float32 [B, 1, L, S], 0 where a
/// key may be seen, the lowest float32 elsewhere.
torch::Tensor prefix_mask(const torch::Tensor& positions,
                          const torch::Tensor& is_prefix,
                          std::optional<int64_t> window = std::nullopt);

}  // namespace gemma
