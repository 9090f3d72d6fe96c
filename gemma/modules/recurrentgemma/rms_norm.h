#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/module.h>
#include <gemma/modules/tapped_norm.h>

namespace gemma::recurrentgemma {

/// recurrentgemma/torch/layers.py: RMSNorm. x / sqrt(mean(x^2) + eps) * (1 + scale), computed in
/// x's dtype, unlike Gemma's.
class RMSNormImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size.
  explicit RMSNormImpl(int64_t width, double eps = 1e-6);

  /// [..., width] -> [..., width].
  torch::Tensor forward(const torch::Tensor& x);

  int64_t width() const { return scale.size(0); }
  double eps() const { return eps_; }
  std::vector<TapPoint> tap_points() const override { return rms_norm_tap_points(); }
  std::string signature() const override { return "RMSNorm()"; }

  torch::Tensor scale;  // [width], zeros until loaded

 private:
  double eps_;
};
TORCH_MODULE(RMSNorm);

}  // namespace gemma::recurrentgemma
