#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/module.h>
#include <gemma/ops/pass.h>
#include <gemma/ops/weight_view.h>

namespace gemma {

/// model.py: Linear. x @ weight^T without bias; int8 weights are multiplied by their row's scale.
class LinearImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size.
  LinearImpl(int64_t in_features, int64_t out_features, bool quant);

  /// [..., in_features] -> [..., out_features].
  torch::Tensor forward(const torch::Tensor& x, Pass pass = Pass::kAny);

  /// The weight in the form that operations take.
  WeightView view() const { return {weight, weight_scaler}; }

  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override;

  torch::Tensor weight;         // [out_features, in_features], default dtype or int8
  torch::Tensor weight_scaler;  // [out_features]; undefined unless quant
};
TORCH_MODULE(Linear);

}  // namespace gemma
