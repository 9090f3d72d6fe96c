#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/linear.h>
#include <gemma/modules/module.h>

namespace gemma {

/// model.py: GemmaMLP. down(gelu_tanh(gate(x)) * up(x)).
class GemmaMLPImpl : public Module {
 public:
  GemmaMLPImpl(int64_t hidden_size, int64_t intermediate_size, bool quant);

  /// [..., E] -> [..., E].
  torch::Tensor forward(const torch::Tensor& x, Pass pass = Pass::kAny);

  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override { return "GemmaMLP()"; }

  Linear gate_proj{nullptr};
  Linear up_proj{nullptr};
  Linear down_proj{nullptr};

 private:
  torch::Tensor compute(const torch::Tensor& x, Pass pass);
};
TORCH_MODULE(GemmaMLP);

}  // namespace gemma
