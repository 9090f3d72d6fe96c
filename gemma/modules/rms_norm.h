#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/module.h>
#include <gemma/modules/tapped_norm.h>
#include <gemma/ops/weight_view.h>

namespace gemma {

/// model.py: RMSNorm. x / sqrt(mean(x^2) + eps) * (1 + weight), computed in float32 and returned
/// in x's dtype; without the unit offset, * weight.
class RMSNormImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size.
  explicit RMSNormImpl(int64_t dim, double eps = 1e-6, bool add_unit_offset = true);

  /// [..., dim] -> [..., dim].
  torch::Tensor forward(const torch::Tensor& x);

  /// residual + forward(x), both [..., dim]. With taps, fast numerics may round the sum otherwise.
  torch::Tensor add(const torch::Tensor& residual, const torch::Tensor& x) const;

  /// The parameters in the form that operations take.
  NormWeight view() const { return {weight, eps_, add_unit_offset_}; }

  double eps() const { return eps_; }
  bool add_unit_offset() const { return add_unit_offset_; }
  std::vector<TapPoint> tap_points() const override { return rms_norm_tap_points(); }
  std::string signature() const override;

  torch::Tensor weight;  // [dim], zeros until loaded

 private:
  double eps_;
  bool add_unit_offset_;
};
TORCH_MODULE(RMSNorm);

}  // namespace gemma
