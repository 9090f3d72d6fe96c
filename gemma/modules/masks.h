#pragma once

#include <cstdint>

#include <torch/types.h>

namespace gemma {

// The rows that generate() in model.py cuts out of its [S, S] masks: 0 where a key may be seen,
// -2.3819763e38 (rounded to the default dtype, as there) elsewhere.

/// Key j is seen from position i if j <= i.
/// positions [L] int64 -> float32 [1, 1, L, max_seq_len] on the same device.
torch::Tensor causal_mask(const torch::Tensor& positions, int64_t max_seq_len);

/// Key j is seen from position i if i - window < j <= i: `window` keys, i itself included.
/// Shapes as above.
torch::Tensor sliding_window_mask(const torch::Tensor& positions,
                                  int64_t max_seq_len,
                                  int64_t window);

}  // namespace gemma
