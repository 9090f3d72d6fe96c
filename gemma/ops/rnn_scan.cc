#include <ATen/ATen.h>

#include <gemma/ops/rnn_scan.h>

namespace gemma::recurrentgemma {

std::pair<at::Tensor, at::Tensor> rnn_scan(const at::Tensor& x,
                                           const at::Tensor& a,
                                           const at::Tensor& reset,
                                           const std::optional<at::Tensor>& h0,
                                           at::ScalarType acc_dtype) {
  TORCH_CHECK_VALUE(x.dim() == 3 && a.sizes() == x.sizes() && a.scalar_type() == x.scalar_type(),
                    "rnn_scan: x and a must both be [B, T, E] of one dtype, got ", x.sizes(),
                    " of ", x.scalar_type(), " and ", a.sizes(), " of ", a.scalar_type());
  TORCH_CHECK_VALUE(!h0 || h0->scalar_type() == acc_dtype, "rnn_scan: h0 must be of ", acc_dtype,
                    ", got ", h0 ? h0->scalar_type() : acc_dtype);
  const auto decay = a * reset.unsqueeze(-1).bitwise_not();
  if (x.size(1) == 1 && !h0) return {x, x.select(1, 0).to(acc_dtype)};

  // The reference casts each step by itself, to the same numbers.
  const auto wide_x = x.to(acc_dtype);
  const auto wide_decay = decay.to(acc_dtype);
  auto h = h0 ? *h0 : at::zeros({x.size(0), x.size(2)}, x.options().dtype(acc_dtype));
  auto y = at::empty_like(x);
  for (int64_t t = 0; t < x.size(1); ++t) {
    h = wide_decay.select(1, t) * h + wide_x.select(1, t);
    y.select(1, t).copy_(h);
  }
  return {y, h};
}

}  // namespace gemma::recurrentgemma
