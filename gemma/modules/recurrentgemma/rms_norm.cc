#include <ATen/ops/zeros.h>

#include <gemma/modules/recurrentgemma/rms_norm.h>
#include <gemma/ops/ops.h>

namespace gemma::recurrentgemma {

RMSNormImpl::RMSNormImpl(int64_t width, double eps) : eps_(eps) {
  check_size("RMSNorm", "width", width);
  scale = register_parameter("scale", at::zeros({width}, default_dtype()), /*requires_grad=*/false);
}

torch::Tensor RMSNormImpl::forward(const torch::Tensor& x) {
  const NormWeight norm{scale, eps_, /*add_unit_offset=*/true, /*in_float32=*/false};
  return is_tapped() ? tapped_rms_norm(*this, ops(), x, norm) : ops().rms_norm(x, norm);
}

}  // namespace gemma::recurrentgemma
