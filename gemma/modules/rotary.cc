#include <gemma/modules/rotary.h>

#include <ATen/ATen.h>

namespace gemma {

torch::Tensor precompute_freqs_cis(int64_t dim,
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

}  // namespace gemma
