#include <cmath>
#include <stdexcept>

#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>

#include <gemma/modules/attention.h>
#include <gemma/modules/tapped_ops.h>
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
  if (is_tapped() || are_norms_tapped()) return forward_tapped(hidden_states, inputs);
  const auto pass = pass_of(inputs);
  const auto qkv = qkv_proj(hidden_states, pass);
  return o_proj(std::visit([&](const auto& given) { return attend(ops(), qkv, given); }, inputs),
                pass);
}

torch::Tensor GemmaAttentionImpl::attend(const Ops& by,
                                         const torch::Tensor& qkv,
                                         const DenseInputs& inputs) const {
  const auto q = by.rotate_and_cache(qkv, shape_, {view(query_norm), view(key_norm)},
                                     inputs.freqs_cis, inputs.kv_write_indices, inputs.kv_cache);
  const auto& mask = window() && inputs.local_mask ? *inputs.local_mask : inputs.mask;
  return by.attend(q, inputs.kv_cache, mask, scale_);
}

torch::Tensor GemmaAttentionImpl::attend(const Ops& by,
                                         const torch::Tensor& qkv,
                                         const StepInputs& inputs) const {
  const auto& [cache, tables] = std::get<AttentionState>(inputs.state);
  return by.attend_segments(qkv, shape_, {view(query_norm), view(key_norm)}, scale_, window(),
                            inputs.freqs_cis, inputs.pass, inputs.segments, cache, tables);
}

bool GemmaAttentionImpl::are_norms_tapped() const {
  return !query_norm.is_empty() && (query_norm->is_tapped() || key_norm->is_tapped());
}

torch::Tensor GemmaAttentionImpl::forward_tapped(const torch::Tensor& hidden_states,
                                                 const AttentionInputs& inputs) {
  const auto pass = pass_of(inputs);
  const auto qkv = tapped_heads(qkv_proj(tapped("hook_in", hidden_states), pass));
  const auto heads = attend_tapped(qkv, inputs).unflatten(-1, {num_heads(), head_dim()});
  const auto z = tapped("hook_z", heads).flatten(-2);
  if (is_tapped_at("hook_result")) return tapped("hook_out", sum_of_results(z, pass));
  return tapped("hook_out", o_proj(z, pass));
}

// qkv after the taps of its parts.
torch::Tensor GemmaAttentionImpl::tapped_heads(const torch::Tensor& qkv) const {
  if (!is_tapped_at("hook_q") && !is_tapped_at("hook_k") && !is_tapped_at("hook_v")) return qkv;
  const auto q_size = num_heads() * head_dim();
  const auto kv_size = num_kv_heads() * head_dim();
  const auto parts = qkv.split_with_sizes({q_size, kv_size, kv_size}, /*dim=*/-1);
  const auto tap = [&](std::string_view point, const at::Tensor& part) {
    return tapped(point, part.unflatten(-1, {-1, head_dim()})).flatten(-2);
  };
  return at::cat({tap("hook_q", parts[0]), tap("hook_k", parts[1]), tap("hook_v", parts[2])},
                 /*dim=*/-1);
}

torch::Tensor GemmaAttentionImpl::attend_tapped(const torch::Tensor& qkv,
                                                const AttentionInputs& inputs) const {
  const auto attend_by = [&](const Ops& by) {
    return std::visit([&](const auto& given) { return attend(by, qkv, given); }, inputs);
  };
  if (!are_norms_tapped() && !is_tapped_inside()) return attend_by(ops());
  const auto inner = [this](Inner which, const at::Tensor& value) {
    switch (which) {
      case Inner::kRotatedQuery:
        // `attend` scales it in place.
        return is_tapped_at("hook_rot_q") ? tapped("hook_rot_q", value).clone() : value;
      case Inner::kRotatedKey:
        return tapped("hook_rot_k", value);
      case Inner::kScores:
        return tapped("hook_attn_scores", value);
      case Inner::kPattern:
        return tapped("hook_pattern", value);
      default:
        return value;
    }
  };
  return attend_by(TappedAttentionOps(inner, query_norm, key_norm, passes()));
}

// o_proj of z [..., H * D], of which each head adds its own part.
torch::Tensor GemmaAttentionImpl::sum_of_results(const torch::Tensor& z, Pass pass) {
  const auto heads = z.unflatten(-1, {num_heads(), 1, head_dim()});  // [..., H, 1, D]
  const auto weight = dequantize(o_proj->view()).to(z.scalar_type());
  const auto by_head = weight.unflatten(1, {num_heads(), head_dim()}).permute({1, 2, 0});
  const auto results = at::matmul(heads, by_head).squeeze(-2);  // [..., H, E]
  const auto after = tapped_copy("hook_result", results);
  // What nobody changed keeps its bits.
  return after.equal(results) ? o_proj(z, pass) : after.sum(-2);
}

void GemmaAttentionImpl::check_taps(Numerics numerics) const {
  Module::check_taps(numerics);
  if (numerics == Numerics::kExact || !are_norms_tapped()) return;
  throw std::invalid_argument(
      "taps: fast numerics do not compute query_norm and key_norm of GemmaAttention by "
      "themselves; use set_numerics(\"exact\")");
}

std::vector<TapPoint> GemmaAttentionImpl::tap_points() const {
  return {{"hook_in"},
          {"hook_q"},
          {"hook_k"},
          {"hook_v"},
          {"hook_rot_q", /*is_inner=*/true},
          {"hook_rot_k", /*is_inner=*/true},
          {"hook_attn_scores", /*is_inner=*/true},
          {"hook_pattern", /*is_inner=*/true},
          {"hook_z"},
          {"hook_result", /*is_inner=*/true},
          {"hook_out"}};
}

}  // namespace gemma
