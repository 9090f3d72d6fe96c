#include <gemma/modules/decoder_layer.h>

namespace gemma {

DecoderLayerImpl::DecoderLayerImpl(const GemmaConfig& config, AttentionType attn_type)
    : self_attn(register_module("self_attn", GemmaAttention(config, attn_type))),
      mlp(register_module("mlp",
                          GemmaMLP(config.hidden_size, config.intermediate_size, config.quant))),
      input_layernorm(
          register_module("input_layernorm", RMSNorm(config.hidden_size, config.rms_norm_eps))),
      post_attention_layernorm(register_module("post_attention_layernorm",
                                               RMSNorm(config.hidden_size, config.rms_norm_eps))),
      attn_type_(attn_type) {}

torch::Tensor DecoderLayerImpl::forward(const torch::Tensor& hidden_states,
                                        const torch::Tensor& freqs_cis,
                                        const torch::Tensor& kv_write_indices,
                                        const KVCache& kv_cache,
                                        const torch::Tensor& mask,
                                        const std::optional<torch::Tensor>& local_mask) {
  return forward_with(hidden_states,
                      DenseInputs{freqs_cis, kv_write_indices, kv_cache, mask, local_mask});
}

std::vector<TapPoint> DecoderLayerImpl::tap_points() const {
  return {{"hook_in"}, {"hook_resid_mid"}, {"hook_out"}};
}

GemmaDecoderLayerImpl::GemmaDecoderLayerImpl(const GemmaConfig& config)
    : DecoderLayerImpl(config, AttentionType::kGlobal) {}

torch::Tensor GemmaDecoderLayerImpl::forward_with(const torch::Tensor& hidden_states,
                                                  const AttentionInputs& inputs) {
  const auto residual = tapped("hook_in", hidden_states);
  const auto x = tapped("hook_resid_mid",
                        residual + self_attn->forward_with(input_layernorm(residual), inputs));
  return tapped("hook_out", x + mlp(post_attention_layernorm(x), pass_of(inputs)));
}

Gemma2DecoderLayerImpl::Gemma2DecoderLayerImpl(const GemmaConfig& config, AttentionType attn_type)
    : DecoderLayerImpl(config, attn_type) {
  if (config.use_pre_ffw_norm) {
    pre_feedforward_layernorm = register_module("pre_feedforward_layernorm",
                                                RMSNorm(config.hidden_size, config.rms_norm_eps));
  }
  if (config.use_post_ffw_norm) {
    post_feedforward_layernorm = register_module("post_feedforward_layernorm",
                                                 RMSNorm(config.hidden_size, config.rms_norm_eps));
  }
}

torch::Tensor Gemma2DecoderLayerImpl::forward_with(const torch::Tensor& hidden_states,
                                                   const AttentionInputs& inputs) {
  const auto residual = tapped("hook_in", hidden_states);
  const auto attended = self_attn->forward_with(input_layernorm(residual), inputs);
  const auto x = tapped("hook_resid_mid", post_attention_layernorm->add(residual, attended));

  const auto fed =
      mlp(pre_feedforward_layernorm.is_empty() ? x : pre_feedforward_layernorm(x), pass_of(inputs));
  if (post_feedforward_layernorm.is_empty()) return tapped("hook_out", x + fed);
  return tapped("hook_out", post_feedforward_layernorm->add(x, fed));
}

}  // namespace gemma
