#pragma once

#include <optional>
#include <string>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/config/config.h>
#include <gemma/modules/attention.h>
#include <gemma/modules/mlp.h>
#include <gemma/modules/module.h>
#include <gemma/modules/rms_norm.h>

namespace gemma {

/// Base of the decoder layers, and the parts that all of them have.
class DecoderLayerImpl : public Module {
 public:
  DecoderLayerImpl(const GemmaConfig& config, AttentionType attn_type);

  /// hidden_states [B, L, E] -> [B, L, E]; the rest as GemmaAttention takes it.
  torch::Tensor forward(const torch::Tensor& hidden_states,
                        const torch::Tensor& freqs_cis,
                        const torch::Tensor& kv_write_indices,
                        const KVCache& kv_cache,
                        const torch::Tensor& mask,
                        const std::optional<torch::Tensor>& local_mask);

  /// What forward does: hidden_states [B, L, E] or [T, E], as the inputs say -> the same shape.
  virtual torch::Tensor forward_with(const torch::Tensor& hidden_states,
                                     const AttentionInputs& inputs) = 0;

  AttentionType attn_type() const { return attn_type_; }
  std::vector<TapPoint> tap_points() const override;

  GemmaAttention self_attn{nullptr};
  GemmaMLP mlp{nullptr};
  RMSNorm input_layernorm{nullptr};
  RMSNorm post_attention_layernorm{nullptr};

 private:
  AttentionType attn_type_;
};

/// model.py: GemmaDecoderLayer, the layer of Gemma 1. Its post_attention_layernorm is the norm
/// before the MLP. A window and local_mask are not used, as in the reference.
class GemmaDecoderLayerImpl : public DecoderLayerImpl {
 public:
  explicit GemmaDecoderLayerImpl(const GemmaConfig& config);

  torch::Tensor forward_with(const torch::Tensor& hidden_states,
                             const AttentionInputs& inputs) override;

  std::string signature() const override { return "GemmaDecoderLayer()"; }
};
TORCH_MODULE(GemmaDecoderLayer);

/// model.py: Gemma2DecoderLayer, the layer of Gemma 2 and 3. Attention and MLP outputs are
/// normalised before they are added to the residual.
class Gemma2DecoderLayerImpl : public DecoderLayerImpl {
 public:
  Gemma2DecoderLayerImpl(const GemmaConfig& config, AttentionType attn_type);

  torch::Tensor forward_with(const torch::Tensor& hidden_states,
                             const AttentionInputs& inputs) override;

  std::string signature() const override { return "Gemma2DecoderLayer()"; }

  RMSNorm pre_feedforward_layernorm{nullptr};   // Empty unless config.use_pre_ffw_norm.
  RMSNorm post_feedforward_layernorm{nullptr};  // Empty unless config.use_post_ffw_norm.
};
TORCH_MODULE(Gemma2DecoderLayer);

}  // namespace gemma
