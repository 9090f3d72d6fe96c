#include <map>
#include <utility>

#include <fmt/format.h>

#include <gemma/models/lens_names.h>

namespace gemma {
namespace {

using Names = std::vector<std::string>;
using NameTable = std::map<std::string, Names, std::less<>>;

// A norm of ours, and theirs.
void add_norm(NameTable& table, const std::string& ours, const std::string& theirs) {
  for (const auto* const point : {"hook_in", "hook_scale", "hook_normalized", "hook_out"}) {
    table[fmt::format("{}.{}", ours, point)] = {fmt::format("{}.{}", theirs, point)};
  }
}

// Of the points of a layer.
NameTable layer_table(const GemmaConfig& config) {
  NameTable table{
      {"hook_in", {"hook_resid_pre", "hook_in"}},
      {"hook_resid_mid", {"hook_resid_mid", "ln2.hook_in"}},
      {"hook_out", {"hook_resid_post", "hook_out"}},
      {"self_attn.hook_in", {"attn.hook_in"}},
      {"self_attn.hook_q", {"attn.hook_q", "attn.q.hook_out"}},
      {"self_attn.hook_k", {"attn.hook_k", "attn.k.hook_out"}},
      {"self_attn.hook_v", {"attn.hook_v", "attn.v.hook_out"}},
      {"self_attn.hook_rot_q", {"attn.hook_rot_q"}},
      {"self_attn.hook_rot_k", {"attn.hook_rot_k"}},
      {"self_attn.hook_attn_scores", {"attn.hook_attn_scores"}},
      {"self_attn.hook_pattern", {"attn.hook_pattern"}},
      {"self_attn.hook_z", {"attn.hook_z", "attn.o.hook_in"}},
      {"self_attn.hook_result", {"attn.hook_result"}},
      {"self_attn.hook_out", {"attn.hook_out"}},
      {"mlp.hook_in", {"mlp.hook_in"}},
      {"mlp.gate_proj.hook_out", {"mlp.hook_pre", "mlp.gate.hook_out"}},
      {"mlp.up_proj.hook_out", {"mlp.hook_pre_linear", "mlp.in.hook_out"}},
      {"mlp.down_proj.hook_in", {"mlp.hook_post", "mlp.out.hook_in"}},
      {"mlp.hook_out", {"mlp.hook_out"}},
  };
  add_norm(table, "input_layernorm", "ln1");
  add_norm(table, "self_attn.query_norm", "attn.q_norm");
  add_norm(table, "self_attn.key_norm", "attn.k_norm");
  const bool is_first = config.architecture == Architecture::kGemma1;
  const std::string ln2 = is_first ? "post_attention_layernorm" : "pre_feedforward_layernorm";
  add_norm(table, ln2, "ln2");
  // Theirs is before the residual branches off.
  table[ln2 + ".hook_in"] = {"hook_mlp_in"};
  std::string attn_out = "self_attn.hook_out";
  std::string mlp_out = "mlp.hook_out";
  if (!is_first) {
    add_norm(table, "post_attention_layernorm", "ln1_post");
    attn_out = "post_attention_layernorm.hook_out";
    if (config.use_post_ffw_norm) {
      add_norm(table, "post_feedforward_layernorm", "ln2_post");
      mlp_out = "post_feedforward_layernorm.hook_out";
    }
  }
  // What is added to the residual.
  table[attn_out].insert(table[attn_out].begin(), "hook_attn_out");
  table[mlp_out].insert(table[mlp_out].begin(), "hook_mlp_out");
  return table;
}

}  // namespace

LensNames::LensNames(const GemmaConfig& config) : of_layer_(layer_table(config)) {}

std::vector<std::string> LensNames::of(std::string_view path) const {
  constexpr std::string_view kLayers = "layers.";
  if (path == "hook_in") return {"hook_embed", "embed.hook_out"};
  if (path.starts_with("norm.")) return {fmt::format("ln_final.{}", path.substr(5))};
  if (!path.starts_with(kLayers)) return {};
  const auto dot = path.find('.', kLayers.size());
  const auto found = of_layer_.find(path.substr(dot + 1));
  if (found == of_layer_.end()) return {};
  Names names;
  for (const auto& name : found->second) {
    names.push_back(
        fmt::format("blocks.{}.{}", path.substr(kLayers.size(), dot - kLayers.size()), name));
  }
  return names;
}

}  // namespace gemma
