#pragma once

#include <cstdint>

#include <torch/types.h>

#include <gemma/ops/reference_ops.h>  // apply_rotary_emb

namespace gemma {

/// model.py: precompute_freqs_cis. e^(i * position * frequency) for positions 0 to end - 1, in
/// float32 whatever the default dtype. -> complex64 [end, dim / 2].
/// `rope_scaling_factor` divides the frequencies.
torch::Tensor precompute_freqs_cis(int64_t dim,
                                   int64_t end,
                                   double theta = 10000.0,
                                   int64_t rope_scaling_factor = 1);

}  // namespace gemma
