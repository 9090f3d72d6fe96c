#include <ATen/ATen.h>

#include <gemma/ops/rotary.h>

namespace gemma {
namespace {

at::Tensor rotate_half(const at::Tensor& x) {
  const auto half = x.size(-1) / 2;
  return at::cat({-x.slice(-1, half), x.slice(-1, 0, half)}, /*dim=*/-1);
}

}  // namespace

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

at::Tensor rope_frequencies(int64_t dim, double base) {
  const auto exponents = at::arange(0, dim, 2, at::kFloat) / dim;
  return at::pow(base, exponents).reciprocal() * 1.0;  // Python's 1.0 / x.
}

std::pair<at::Tensor, at::Tensor> rope_cos_sin(const at::Tensor& position_ids,
                                               const at::Tensor& inv_freq,
                                               at::ScalarType dtype) {
  const auto freqs = position_ids.unsqueeze(-1).to(at::kFloat) * inv_freq;
  const auto angles = at::cat({freqs, freqs}, /*dim=*/-1);
  return {angles.cos().to(dtype), angles.sin().to(dtype)};
}

std::pair<at::Tensor, at::Tensor> apply_rotary_pos_emb(const at::Tensor& q,
                                                       const at::Tensor& k,
                                                       const at::Tensor& cos,
                                                       const at::Tensor& sin,
                                                       int64_t unsqueeze_dim) {
  const auto c = cos.unsqueeze(unsqueeze_dim), s = sin.unsqueeze(unsqueeze_dim);
  return {q * c + rotate_half(q) * s, k * c + rotate_half(k) * s};
}

}  // namespace gemma
