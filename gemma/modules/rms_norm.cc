#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <gemma/modules/rms_norm.h>
#include <gemma/modules/tapped_ops.h>
#include <gemma/ops/ops.h>

namespace gemma {

RMSNormImpl::RMSNormImpl(int64_t dim, double eps, bool add_unit_offset)
    : eps_(eps), add_unit_offset_(add_unit_offset) {
  check_size("RMSNorm", "dim", dim);
  weight = register_parameter("weight", at::zeros({dim}, default_dtype()), /*requires_grad=*/false);
}

torch::Tensor RMSNormImpl::forward(const torch::Tensor& x) {
  return is_tapped() ? forward_tapped(x) : ops().rms_norm(x, view());
}

torch::Tensor RMSNormImpl::add(const torch::Tensor& residual, const torch::Tensor& x) const {
  return is_tapped() ? residual + forward_tapped(x) : ops().add_rms_norm(residual, x, view());
}

torch::Tensor RMSNormImpl::forward_tapped(const torch::Tensor& x) const {
  const auto in = tapped_copy("hook_in", x);
  if (!is_tapped_at("hook_scale") && !is_tapped_at("hook_normalized")) {
    return tapped("hook_out", ops().rms_norm(in, view()));
  }
  const TappedOps stepwise([this](Inner which, const at::Tensor& value) {
    if (which == Inner::kNormalized) return tapped("hook_normalized", value);
    return is_tapped_at("hook_scale") ? tapped_inverse(value) : value;
  });
  return tapped("hook_out", stepwise.rms_norm(in, view()));
}

// 1 / rms after the taps of the rms.
torch::Tensor RMSNormImpl::tapped_inverse(const torch::Tensor& inverse_rms) const {
  const auto rms = inverse_rms.reciprocal();
  const auto after = tapped_copy("hook_scale", rms);
  // What nobody changed keeps its bits.
  return after.equal(rms) ? inverse_rms : after.reciprocal();
}

std::vector<TapPoint> RMSNormImpl::tap_points() const {
  return {{"hook_in"},
          {"hook_scale", /*is_inner=*/true},
          {"hook_normalized", /*is_inner=*/true},
          {"hook_out"}};
}

std::string RMSNormImpl::signature() const {
  return fmt::format("RMSNorm(({},), eps={}{})", weight.size(0), eps_,
                     add_unit_offset_ ? "" : ", add_unit_offset=False");
}

}  // namespace gemma
