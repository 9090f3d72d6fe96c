#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/biased_linear.h>
#include <gemma/modules/module.h>

// The layers of torch.nn that the vision model is made of, without contents until weights are
// loaded. E is the width of the vision model, P the number of patches of an image.
namespace gemma {

/// torch.nn.LayerNorm over the last dimension.
class LayerNormImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size.
  LayerNormImpl(int64_t dim, double eps);

  /// [..., dim] -> [..., dim].
  torch::Tensor forward(const torch::Tensor& x);

  std::vector<TapPoint> tap_points() const override { return {{"hook_in"}, {"hook_out"}}; }
  std::string signature() const override;

  torch::Tensor weight;  // [dim], ones until loaded
  torch::Tensor bias;    // [dim], zeros until loaded

 private:
  double eps_;
};
TORCH_MODULE(LayerNorm);

/// torch.nn.Conv2d with a stride of its kernel's size, so that each patch of an image is seen once.
class PatchEmbeddingImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size.
  PatchEmbeddingImpl(int64_t in_channels, int64_t out_channels, int64_t patch_size, bool use_bias);

  /// [N, C, height, width] -> [N, P, out_channels] in the weight's dtype, patches row by row.
  torch::Tensor forward(const torch::Tensor& pixels);

  std::vector<TapPoint> tap_points() const override { return {{"hook_in"}, {"hook_out"}}; }
  std::string signature() const override;

  torch::Tensor weight;  // [out_channels, in_channels, patch_size, patch_size]
  torch::Tensor bias;    // [out_channels]; undefined without bias
};
TORCH_MODULE(PatchEmbedding);

}  // namespace gemma
