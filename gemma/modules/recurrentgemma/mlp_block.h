#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/biased_linear.h>
#include <gemma/modules/module.h>
#include <gemma/modules/recurrentgemma/einsum.h>
#include <gemma/modules/recurrentgemma/stacked_weight.h>
#include <gemma/ops/pass.h>

namespace gemma::recurrentgemma {

/// recurrentgemma/torch/modules.py: MLPBlock. ffw_down(gelu_tanh(up[0]) * up[1]), both of ffw_up.
class MLPBlockImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size.
  MLPBlockImpl(int64_t width, int64_t expanded_width);

  /// [B, T, width], in an engine [T, width] -> the same shape.
  torch::Tensor forward(const torch::Tensor& x, Pass pass = Pass::kAny);

  int64_t width() const { return ffw_up->w.size(1); }
  int64_t expanded_width() const { return ffw_up->w.size(2); }
  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override { return "MLPBlock()"; }

  Einsum ffw_up{nullptr};  // w [2, width, expanded_width], b [2, 1, 1, expanded_width]
  BiasedLinear ffw_down{nullptr};

 private:
  torch::Tensor compute(const torch::Tensor& x, Pass pass);
  std::pair<torch::Tensor, torch::Tensor> gate_and_up(const torch::Tensor& x, Pass pass);

  void arrange_own_weights() override { arrange_stacked(ffw_up->w, ops()); }
};
TORCH_MODULE(MLPBlock);

}  // namespace gemma::recurrentgemma
