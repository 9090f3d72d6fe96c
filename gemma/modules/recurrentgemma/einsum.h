#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/module.h>
#include <gemma/ops/weight_view.h>

namespace gemma::recurrentgemma {

/// recurrentgemma/torch/layers.py: Einsum. einsum(eqn, x, w) + b.
class EinsumImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size.
  EinsumImpl(const std::vector<int64_t>& w_shape,
             const std::vector<int64_t>& b_shape,
             std::string eqn);

  /// As the equation says.
  torch::Tensor forward(const torch::Tensor& x);

  /// The parameters in the form that operations take.
  BiasedWeight view() const { return {w, b}; }

  const std::string& eqn() const { return eqn_; }
  std::string signature() const override { return "Einsum()"; }

  torch::Tensor w;
  torch::Tensor b;

 private:
  std::string eqn_;
};
TORCH_MODULE(Einsum);

}  // namespace gemma::recurrentgemma
