#include <ATen/ATen.h>

#include <gemma/ops/rotary.h>

namespace gemma {

at::Tensor precompute_freqs_cis(int64_t dim,
                                int64_t end,
                                double theta,
                                int64_t rope_scaling_factor) {
  const auto exponents = at::arange(0, dim, 2).slice(0, 0, dim / 2).to(at::kFloat) / dim;
  // Python's 1.0 / x is x.reciprocal() * 1.0, which rounds otherwise than a division.
  auto freqs = at::pow(theta, exponents).reciprocal() * 1.0;
  freqs = freqs / rope_scaling_factor;
  const auto angles = at::outer(at::arange(end), freqs).to(at::kFloat);
  return at::polar(at::ones_like(angles), angles);
}

at::Tensor apply_rotary_emb(const at::Tensor& x, const at::Tensor& freqs_cis) {
  const auto halves = x.transpose(1, 2).to(at::kFloat).chunk(2, /*dim=*/-1);
  const auto pairs = at::view_as_complex(at::stack(halves, /*dim=*/-1));  // [B, heads, L, D/2]
  const auto rotated = at::view_as_real(pairs * freqs_cis).to(x.scalar_type());
  const auto stacked = at::cat(rotated.chunk(2, /*dim=*/-1), /*dim=*/-2);  // [B, heads, L, D, 1]
  return stacked.reshape({stacked.size(0), stacked.size(1), stacked.size(2), -1}).transpose(1, 2);
}

}  // namespace gemma
