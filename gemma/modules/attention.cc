#include <cmath>

#include <gemma/modules/attention.h>
#include <gemma/ops/ops.h>

namespace gemma {
namespace {

std::optional<NormWeight> view(const RMSNorm& norm) {
  if (norm.is_empty()) return std::nullopt;
  return norm->view();
}

}  // namespace

GemmaAttentionImpl::GemmaAttentionImpl(const GemmaConfig& config, AttentionType attn_type)
    : attn_type_(attn_type), sliding_window_size_(config.sliding_window_size) {
  validate(config);
  shape_ = {config.num_attention_heads, config.num_key_value_heads, config.head_dim};
  const auto scalar = config.query_pre_attn_scalar.value_or(config.head_dim);
  scale_ = {std::pow(static_cast<double>(scalar), -0.5), config.attn_logit_softcapping};

  const auto [num_heads, num_kv_heads, head_dim] = shape_;
  const auto qkv_size = (num_heads + 2 * num_kv_heads) * head_dim;
  qkv_proj = register_module("qkv_proj", Linear(config.hidden_size, qkv_size, config.quant));
  o_proj =
      register_module("o_proj", Linear(num_heads * head_dim, config.hidden_size, config.quant));
  if (config.use_qk_norm) {
    query_norm = register_module("query_norm", RMSNorm(head_dim, config.rms_norm_eps));
    key_norm = register_module("key_norm", RMSNorm(head_dim, config.rms_norm_eps));
  }
}

torch::Tensor GemmaAttentionImpl::forward(const torch::Tensor& hidden_states,
                                          const torch::Tensor& freqs_cis,
                                          const torch::Tensor& kv_write_indices,
                                          const KVCache& kv_cache,
                                          const torch::Tensor& mask,
                                          const std::optional<torch::Tensor>& local_mask) {
  TORCH_CHECK(hidden_states.dim() == 3, "GemmaAttention: hidden_states must be [B, L, E], got ",
              hidden_states.sizes());
  return forward_with(hidden_states,
                      DenseInputs{freqs_cis, kv_write_indices, kv_cache, mask, local_mask});
}

torch::Tensor GemmaAttentionImpl::forward_with(const torch::Tensor& hidden_states,
                                               const AttentionInputs& inputs) {
  const auto pass = pass_of(inputs);
  const auto qkv = qkv_proj(hidden_states, pass);
  return o_proj(std::visit([&](const auto& given) { return attend(qkv, given); }, inputs), pass);
}

torch::Tensor GemmaAttentionImpl::attend(const torch::Tensor& qkv,
                                         const DenseInputs& inputs) const {
  const auto q = ops().rotate_and_cache(qkv, shape_, {view(query_norm), view(key_norm)},
                                        inputs.freqs_cis, inputs.kv_write_indices, inputs.kv_cache);
  const auto& mask = window() && inputs.local_mask ? *inputs.local_mask : inputs.mask;
  return ops().attend(q, inputs.kv_cache, mask, scale_);
}

torch::Tensor GemmaAttentionImpl::attend(const torch::Tensor& qkv, const StepInputs& inputs) const {
  const auto& [cache, tables] = std::get<AttentionState>(inputs.state);
  return ops().attend_segments(qkv, shape_, {view(query_norm), view(key_norm)}, scale_, window(),
                               inputs.freqs_cis, inputs.pass, inputs.segments, cache, tables);
}

}  // namespace gemma
