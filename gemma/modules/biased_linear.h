#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/module.h>
#include <gemma/ops/pass.h>
#include <gemma/ops/weight_view.h>

namespace gemma {

/// torch.nn.Linear: x @ weight^T + bias. Gemma's own Linear has no bias, but may be quantised.
class BiasedLinearImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size.
  BiasedLinearImpl(int64_t in_features, int64_t out_features);

  /// [..., in_features] -> [..., out_features].
  torch::Tensor forward(const torch::Tensor& x, Pass pass = Pass::kAny);

  /// The parameters as an operation takes them.
  BiasedWeight view() const { return {weight, bias}; }

  std::vector<TapPoint> tap_points() const override { return {{"hook_in"}, {"hook_out"}}; }
  std::string signature() const override;

  torch::Tensor weight;  // [out_features, in_features], without contents until loaded
  torch::Tensor bias;    // [out_features], likewise
};
TORCH_MODULE(BiasedLinear);

}  // namespace gemma
