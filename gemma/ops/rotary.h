#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace gemma {

/// model.py: precompute_freqs_cis. e^(i * position * frequency) for positions 0 to end - 1, in
/// float32 whatever the default dtype. -> complex64 [end, dim / 2].
/// `rope_scaling_factor` divides the frequencies.
at::Tensor precompute_freqs_cis(int64_t dim,
                                int64_t end,
                                double theta = 10000.0,
                                int64_t rope_scaling_factor = 1);

/// model.py: apply_rotary_emb. Rotates the pairs (i, i + D / 2) of every head in float32.
/// x [B, L, heads, D], freqs_cis complex64 [L, D / 2] -> [B, L, heads, D] in x's dtype.
at::Tensor apply_rotary_emb(const at::Tensor& x, const at::Tensor& freqs_cis);

}  // namespace gemma
