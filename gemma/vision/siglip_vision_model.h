#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>

#include <gemma/config/vision_config.h>
#include <gemma/modules/embedding.h>
#include <gemma/modules/module.h>
#include <gemma/vision/siglip_layers.h>

// Shapes: N images, P patches of an image, U tokens that an image becomes, E width of this model.
namespace gemma {

/// siglip_vision_model.py: SiglipAttention. Every patch attends to all of its image.
class SiglipAttentionImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size.
  SiglipAttentionImpl(int64_t dim, int64_t num_heads, int64_t head_dim);

  /// [N, P, E] -> [N, P, E].
  torch::Tensor forward(const torch::Tensor& x);

  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override { return "SiglipAttention()"; }

  BiasedLinear k_proj{nullptr};
  BiasedLinear q_proj{nullptr};
  BiasedLinear v_proj{nullptr};
  BiasedLinear o_proj{nullptr};

 private:
  torch::Tensor forward_tapped(const torch::Tensor& x);
  torch::Tensor attend_tapped(const torch::Tensor& q,
                              const torch::Tensor& k,
                              const torch::Tensor& v) const;

  int64_t num_heads_;
};
TORCH_MODULE(SiglipAttention);

/// siglip_vision_model.py: SiglipMLP. fc2(gelu_tanh(fc1(x))).
class SiglipMLPImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size.
  SiglipMLPImpl(int64_t hidden_size, int64_t intermediate_size);

  /// [..., E] -> [..., E].
  torch::Tensor forward(const torch::Tensor& x);

  std::vector<TapPoint> tap_points() const override { return {{"hook_in"}, {"hook_out"}}; }
  std::string signature() const override { return "SiglipMLP()"; }

  BiasedLinear fc1{nullptr};
  BiasedLinear fc2{nullptr};

 private:
  torch::Tensor compute(const torch::Tensor& x);
  void check_taps(Numerics numerics) const override;
};
TORCH_MODULE(SiglipMLP);

/// siglip_vision_model.py: SiglipEncoderBlock. Norms stand before attention and MLP.
class SiglipEncoderBlockImpl : public Module {
 public:
  explicit SiglipEncoderBlockImpl(const SiglipVisionModelConfig& config);

  /// [N, P, E] -> [N, P, E].
  torch::Tensor forward(const torch::Tensor& x);

  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override { return "SiglipEncoderBlock()"; }

  SiglipAttention self_attn{nullptr};
  LayerNorm layer_norm1{nullptr};
  SiglipMLP mlp{nullptr};
  LayerNorm layer_norm2{nullptr};
};
TORCH_MODULE(SiglipEncoderBlock);

/// siglip_vision_model.py: AveragePool2D. Means of squares of 4 x 4 patches.
class AveragePool2DImpl : public Module {
 public:
  /// [N, P, E] -> [N, U, E]. Throws c10::ValueError when P is no square number.
  torch::Tensor forward(const torch::Tensor& x);

  std::vector<TapPoint> tap_points() const override { return {{"hook_in"}, {"hook_out"}}; }
  std::string signature() const override { return "AveragePool2D()"; }
};
TORCH_MODULE(AveragePool2D);

/// Whether patches become fewer tokens.
enum class Pooling { kYes, kNo };

/// siglip_vision_model.py: SiglipVisionModel. Pictures to tokens. Without pooling it is the
/// vision_tower of PaliGemma, where each patch is one.
class SiglipVisionModelImpl : public Module {
 public:
  /// Weights take the default dtype. Throws std::invalid_argument, naming the field, for a config
  /// that no model can be built from.
  explicit SiglipVisionModelImpl(const SiglipVisionModelConfig& config,
                                 Pooling pooling = Pooling::kYes);

  /// pixel_values [N, C, image_size, image_size], -1 to 1 -> [N, U, E], [N, P, E] without pooling.
  torch::Tensor forward(const torch::Tensor& pixel_values, const LayerCallback& on_block = {});

  const SiglipVisionModelConfig& config() const { return config_; }
  std::vector<TapPoint> tap_points() const override { return {{"hook_in"}, {"hook_out"}}; }
  std::string signature() const override { return "SiglipVisionModel()"; }

  PatchEmbedding patch_embedding{nullptr};
  Embedding position_embedding{nullptr};
  torch::nn::ModuleList encoder_blocks;  // Of SiglipEncoderBlockImpl.
  LayerNorm final_norm{nullptr};
  AveragePool2D avg_pool{nullptr};  // Empty without pooling.

 private:
  torch::Tensor embed(const torch::Tensor& pixel_values);

  SiglipVisionModelConfig config_;
};
TORCH_MODULE(SiglipVisionModel);

}  // namespace gemma
