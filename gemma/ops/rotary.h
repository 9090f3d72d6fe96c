#pragma once

#include <cstdint>
#include <utility>

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

// The same rotation as Hugging Face transformers writes it, with real numbers.

/// modeling_gemma.py: GemmaRotaryEmbedding.compute_default_rope_parameters. base^(-2i / dim) for i
/// from 0 to dim / 2 - 1 -> float32 [dim / 2].
at::Tensor rope_frequencies(int64_t dim, double base = 10000.0);

/// modeling_gemma.py: GemmaRotaryEmbedding.forward. Cosines and sines of position * frequency, in
/// float32, each frequency twice: position_ids [B, T] of any dtype, inv_freq float32 [D / 2]
/// -> ([B, T, D], [B, T, D]) in `dtype`.
std::pair<at::Tensor, at::Tensor> rope_cos_sin(const at::Tensor& position_ids,
                                               const at::Tensor& inv_freq,
                                               at::ScalarType dtype);

/// modeling_gemma.py: apply_rotary_pos_emb. Rotates the pairs (i, i + D / 2) of queries and keys in
/// their own dtype: q [B, H, T, D], k [B, K, T, D], cos and sin [B, T, D] -> (q, k). With
/// unsqueeze_dim 2, q and k are [B, T, heads, D].
std::pair<at::Tensor, at::Tensor> apply_rotary_pos_emb(const at::Tensor& q,
                                                       const at::Tensor& k,
                                                       const at::Tensor& cos,
                                                       const at::Tensor& sin,
                                                       int64_t unsqueeze_dim = 1);

}  // namespace gemma
