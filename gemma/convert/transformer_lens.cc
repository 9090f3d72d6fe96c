#include <array>
#include <cmath>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/convert/transformer_lens.h>

namespace gemma {
namespace {

using torch::Tensor;

struct Renaming {
  std::string_view ours, theirs;
};

// Gemma 1 has no norms behind its blocks: what it calls post_attention_layernorm is before the MLP.
constexpr std::array kNorms1 = {
    Renaming{"input_layernorm.weight", "ln1.w"},
    Renaming{"post_attention_layernorm.weight", "ln2.w"},
};
constexpr std::array kNorms = {
    Renaming{"input_layernorm.weight", "ln1.w"},
    Renaming{"post_attention_layernorm.weight", "ln1_post.w"},
    Renaming{"pre_feedforward_layernorm.weight", "ln2.w"},
    Renaming{"post_feedforward_layernorm.weight", "ln2_post.w"},
    Renaming{"self_attn.query_norm.weight", "attn.q_norm.w"},
    Renaming{"self_attn.key_norm.weight", "attn.k_norm.w"},
};

[[noreturn]] void refuse(std::string_view name, std::string_view what) {
  throw std::invalid_argument(fmt::format("to_transformer_lens: tensor '{}' {}", name, what));
}

Tensor offset_added(const Tensor& norm) { return norm.to(at::kFloat) + 1; }

StateDict embedding(const Tensor& weight, const GemmaConfig& config) {
  const auto root =
      at::scalar_tensor(std::sqrt(static_cast<double>(config.hidden_size)), weight.options());
  return {{"embed.W_E", weight * root},
          {"unembed.W_U", weight.t()},
          {"unembed.b_U", at::zeros({weight.size(0)}, weight.options())}};
}

// [heads * D, E] -> [heads, E, D].
Tensor by_head(const Tensor& rows, int64_t head_dim) {
  return rows.view({-1, head_dim, rows.size(1)}).transpose(1, 2);
}

StateDict attention(const std::string& block, const Tensor& qkv, const GemmaConfig& config) {
  const auto heads = config.num_attention_heads, kv_heads = config.num_key_value_heads;
  const auto dim = config.head_dim;
  if (qkv.size(0) != (heads + 2 * kv_heads) * dim) {
    refuse(block + "qkv_proj", "has other heads than the config; was the right variant given?");
  }
  const auto parts = qkv.split_with_sizes({heads * dim, kv_heads * dim, kv_heads * dim});
  const auto zeros = [&](int64_t count) { return at::zeros({count, dim}, qkv.options()); };
  // The underscore: as many heads as the file has, not yet repeated for the queries.
  return {
      {block + "attn.W_Q", by_head(parts[0], dim)},  {block + "attn._W_K", by_head(parts[1], dim)},
      {block + "attn._W_V", by_head(parts[2], dim)}, {block + "attn.b_Q", zeros(heads)},
      {block + "attn._b_K", zeros(kv_heads)},        {block + "attn._b_V", zeros(kv_heads)}};
}

StateDict layer(const std::string& block,
                std::string_view leaf,
                const std::string& name,
                const Tensor& tensor,
                const GemmaConfig& config) {
  const auto zeros = [&] { return at::zeros({tensor.size(0)}, tensor.options()); };
  if (leaf == "self_attn.qkv_proj.weight") return attention(block, tensor, config);
  if (leaf == "self_attn.o_proj.weight") {
    // [E, H * D] -> [H, D, E].
    const auto by_heads = tensor.view({tensor.size(0), -1, config.head_dim}).permute({1, 2, 0});
    return {{block + "attn.W_O", by_heads}, {block + "attn.b_O", zeros()}};
  }
  if (leaf == "mlp.gate_proj.weight") return {{block + "mlp.W_gate", tensor.t()}};
  if (leaf == "mlp.up_proj.weight") {
    return {{block + "mlp.W_in", tensor.t()}, {block + "mlp.b_in", zeros()}};
  }
  if (leaf == "mlp.down_proj.weight") {
    return {{block + "mlp.W_out", tensor.t()}, {block + "mlp.b_out", zeros()}};
  }
  const auto norms = config.architecture == Architecture::kGemma1
                         ? std::span<const Renaming>(kNorms1)
                         : std::span<const Renaming>(kNorms);
  for (const auto& norm : norms) {
    if (leaf == norm.ours) return {{block + std::string(norm.theirs), offset_added(tensor)}};
  }
  refuse(name, "is in no layer of this architecture; was the right variant given?");
}

}  // namespace

StateDict to_transformer_lens(const std::string& name,
                              const Tensor& tensor,
                              const GemmaConfig& config) {
  const torch::NoGradGuard no_grad;
  if (!c10::isFloatingType(tensor.scalar_type()) && !is_rope_table(name)) {
    refuse(name, "is quantised, which TransformerLens does not read");
  }
  if (name == "embedder.weight") return embedding(tensor, config);
  if (name == "model.norm.weight") return {{"ln_final.w", offset_added(tensor)}};
  if (is_rope_table(name)) return {};
  constexpr std::string_view kLayers = "model.layers.";
  const auto dot = name.find('.', kLayers.size());
  if (!name.starts_with(kLayers) || dot == std::string::npos) refuse(name, "is no text model's");
  const auto number = name.substr(kLayers.size(), dot - kLayers.size());
  return layer(fmt::format("blocks.{}.", number), std::string_view(name).substr(dot + 1), name,
               tensor, config);
}

}  // namespace gemma
