#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/weight_matrix.h>
#include <gemma/ops/pass.h>

namespace gemma {

/// model.py: Linear. x @ weight^T without bias; int8 weights are multiplied by their row's scale.
class LinearImpl : public WeightMatrix {
 public:
  /// Throws std::invalid_argument for a negative size.
  LinearImpl(int64_t in_features, int64_t out_features, bool quant);

  /// [..., in_features] -> [..., out_features].
  torch::Tensor forward(const torch::Tensor& x, Pass pass = Pass::kAny);

  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override;
};
TORCH_MODULE(Linear);

}  // namespace gemma
