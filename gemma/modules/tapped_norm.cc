#include <gemma/modules/tapped_norm.h>
#include <gemma/modules/tapped_ops.h>
#include <gemma/ops/ops.h>

namespace gemma {
namespace {

// 1 / rms after the taps of the rms.
torch::Tensor tapped_inverse(const Module& module, const torch::Tensor& inverse_rms) {
  const auto rms = inverse_rms.reciprocal();
  const auto after = module.tapped_copy("hook_scale", rms);
  // What nobody changed keeps its bits.
  return after.equal(rms) ? inverse_rms : after.reciprocal();
}

}  // namespace

std::vector<TapPoint> rms_norm_tap_points() {
  return {{"hook_in"},
          {"hook_scale", /*is_inner=*/true},
          {"hook_normalized", /*is_inner=*/true},
          {"hook_out"}};
}

torch::Tensor tapped_rms_norm(const Module& module,
                              const Ops& ops,
                              const torch::Tensor& x,
                              const NormWeight& norm) {
  const auto in = module.tapped_copy("hook_in", x);
  if (!module.is_tapped_inside()) return module.tapped("hook_out", ops.rms_norm(in, norm));
  const TappedOps stepwise([&module](Inner which, const at::Tensor& value) {
    if (which == Inner::kNormalized) return module.tapped("hook_normalized", value);
    return module.is_tapped_at("hook_scale") ? tapped_inverse(module, value) : value;
  });
  return module.tapped("hook_out", stepwise.rms_norm(in, norm));
}

}  // namespace gemma
