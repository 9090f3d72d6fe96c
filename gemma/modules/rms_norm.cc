#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <gemma/modules/rms_norm.h>
#include <gemma/ops/ops.h>

namespace gemma {

RMSNormImpl::RMSNormImpl(int64_t dim, double eps, bool add_unit_offset)
    : eps_(eps), add_unit_offset_(add_unit_offset) {
  check_size("RMSNorm", "dim", dim);
  weight = register_parameter("weight", at::zeros({dim}, default_dtype()), /*requires_grad=*/false);
}

torch::Tensor RMSNormImpl::forward(const torch::Tensor& x) {
  return is_tapped() ? tapped_rms_norm(*this, ops(), x, view()) : ops().rms_norm(x, view());
}

torch::Tensor RMSNormImpl::add(const torch::Tensor& residual, const torch::Tensor& x) const {
  return is_tapped() ? residual + tapped_rms_norm(*this, ops(), x, view())
                     : ops().add_rms_norm(residual, x, view());
}

std::string RMSNormImpl::signature() const {
  return fmt::format("RMSNorm(({},), eps={}{})", weight.size(0), eps_,
                     add_unit_offset_ ? "" : ", add_unit_offset=False");
}

}  // namespace gemma
