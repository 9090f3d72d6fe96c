#include <algorithm>
#include <array>
#include <span>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/weights/gguf/gguf_layout.h>

namespace gemma {
namespace {

struct Names {
  std::string_view ours, theirs;
};

constexpr std::string_view kEmbedding = "token_embd.weight";

constexpr std::array kTop = {
    Names{"embedder.weight", kEmbedding},
    Names{"model.norm.weight", "output_norm.weight"},
};

// In a layer: ours after "model.layers.<i>.", theirs after "blk.<i>.".
constexpr std::array kLayer = {
    Names{"self_attn.qkv_proj.weight", "attn_qkv.weight"},
    Names{"self_attn.o_proj.weight", "attn_output.weight"},
    Names{"self_attn.query_norm.weight", "attn_q_norm.weight"},
    Names{"self_attn.key_norm.weight", "attn_k_norm.weight"},
    Names{"mlp.gate_proj.weight", "ffn_gate.weight"},
    Names{"mlp.up_proj.weight", "ffn_up.weight"},
    Names{"mlp.down_proj.weight", "ffn_down.weight"},
    Names{"input_layernorm.weight", "attn_norm.weight"},
    Names{"pre_feedforward_layernorm.weight", "ffn_norm.weight"},
    Names{"post_attention_layernorm.weight", "post_attention_norm.weight"},
    Names{"post_feedforward_layernorm.weight", "post_ffw_norm.weight"},
};

// Gemma 1 has two norms in a layer, and its "post_attention_layernorm" is that before the MLP.
constexpr Names kGemma1MlpNorm{"post_attention_layernorm.weight", "ffn_norm.weight"};

constexpr std::array<std::string_view, 3> kQkv = {"attn_q.weight", "attn_k.weight",
                                                  "attn_v.weight"};
constexpr std::string_view kQkvProj = "self_attn.qkv_proj.weight";
constexpr std::string_view kHead = "output.weight";
constexpr std::string_view kRopeTable = "rope_freqs.weight";

bool is_norm(std::string_view name) { return name.ends_with("norm.weight"); }

// "blk.", "12", "attn_q.weight" for a tensor of layer 12.
struct LayerName {
  std::string_view layer, rest;
};

std::optional<LayerName> in_layer(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  const auto dot = name.find('.');
  if (dot == 0 || dot == std::string_view::npos) return std::nullopt;
  return LayerName{name.substr(0, dot), name.substr(dot + 1)};
}

// The other side's name, or none.
std::optional<std::string_view> counterpart(std::span<const Names> table,
                                            std::string_view name,
                                            std::string_view Names::* from,
                                            std::string_view Names::* to) {
  const auto found = std::ranges::find(table, name, from);
  return found == table.end() ? std::nullopt : std::optional(*found.*to);
}

std::optional<std::string_view> layer_counterpart(bool is_gemma1,
                                                  std::string_view name,
                                                  std::string_view Names::* from,
                                                  std::string_view Names::* to) {
  if (is_gemma1 && kGemma1MlpNorm.*from == name) return kGemma1MlpNorm.*to;
  return counterpart(kLayer, name, from, to);
}

// Of models that see; a text model computes the same without them.
bool is_of_pictures(std::string_view name) {
  return name.starts_with("v.") || name.starts_with("mm.");
}

// What has no counterpart is below a module of ours all the same, so that nobody loads the rest as
// if it were all.
Recipe recipe_of(const TensorEntry& entry, bool is_gemma1) {
  const double plus = is_norm(entry.name) ? -1 : 0;
  Recipe recipe{.name = entry.name, .parts = {entry.name}};
  if (const auto ours = counterpart(kTop, entry.name, &Names::theirs, &Names::ours)) {
    recipe.name = *ours;
    recipe.plus = plus;
    return recipe;
  }
  const auto place = in_layer(entry.name, "blk.");
  if (!place) {
    if (!is_of_pictures(entry.name)) recipe.name = "model." + entry.name;
    return recipe;
  }
  if (place->rest == kQkv[0]) {
    recipe.name = fmt::format("model.layers.{}.{}", place->layer, kQkvProj);
    recipe.parts.clear();
    for (const auto part : kQkv) {
      recipe.parts.emplace_back(fmt::format("blk.{}.{}", place->layer, part));
    }
    return recipe;
  }
  const auto ours = layer_counterpart(is_gemma1, place->rest, &Names::theirs, &Names::ours);
  recipe.name = fmt::format("model.layers.{}.{}", place->layer, ours.value_or(place->rest));
  if (ours) recipe.plus = plus;
  return recipe;
}

// A table that divides the frequencies of rotations: the same without it if it is all ones.
bool is_rope_of_ones(const Checkpoint& checkpoint, const TensorEntry& entry) {
  return entry.name == kRopeTable && !entry.sizes.empty() && c10::isFloatingType(entry.dtype) &&
         checkpoint.tensor(entry.name).eq(1).all().item<bool>();
}

// The second and third part of a matrix that has a first one, the embedding again, and a table that
// changes nothing.
bool is_passed_over(const Checkpoint& checkpoint, const TensorEntry& entry) {
  const auto place = in_layer(entry.name, "blk.");
  const bool is_part = place && (place->rest == kQkv[1] || place->rest == kQkv[2]) &&
                       checkpoint.contains(fmt::format("blk.{}.{}", place->layer, kQkv[0]));
  return is_part || (entry.name == kHead && checkpoint.contains(kEmbedding)) ||
         is_rope_of_ones(checkpoint, entry);
}

}  // namespace

std::optional<Layout> gguf_layout(const Checkpoint& checkpoint) {
  const auto* const metadata = checkpoint.metadata();
  if (metadata == nullptr) return std::nullopt;
  const auto architecture = metadata->get<std::string>("general.architecture").value_or("");
  if (architecture != "gemma" && architecture != "gemma2" && architecture != "gemma3") {
    return std::nullopt;
  }
  Layout layout{.name = "GGUF", .recipes = {}};
  if (checkpoint.contains(kHead) && checkpoint.contains(kEmbedding)) {
    layout.unembedding = {std::string(kHead), std::string(kEmbedding)};
  }
  for (const auto& entry : checkpoint.entries()) {
    if (is_passed_over(checkpoint, entry)) continue;
    layout.recipes.push_back(recipe_of(entry, architecture == "gemma"));
  }
  return layout;
}

std::vector<GgufPart> gguf_parts(const GemmaConfig& config, std::string_view name, int64_t rows) {
  const auto whole = [&](std::string theirs) {
    return std::vector<GgufPart>{{std::move(theirs), 0, rows, is_norm(name)}};
  };
  if (const auto theirs = counterpart(kTop, name, &Names::ours, &Names::theirs)) {
    return whole(std::string(*theirs));
  }
  const auto place = in_layer(name, "model.layers.");
  if (!place) return {};
  if (place->rest == kQkvProj) {
    const auto q = config.num_attention_heads * config.head_dim;
    const auto kv = config.num_key_value_heads * config.head_dim;
    const auto part = [&](size_t i, int64_t first, int64_t count) {
      return GgufPart{fmt::format("blk.{}.{}", place->layer, kQkv[i]), first, count, false};
    };
    if (q + 2 * kv != rows) return {};
    return {part(0, 0, q), part(1, q, kv), part(2, q + kv, kv)};
  }
  const bool is_gemma1 = config.architecture == Architecture::kGemma1;
  const auto theirs = layer_counterpart(is_gemma1, place->rest, &Names::ours, &Names::theirs);
  if (!theirs) return {};
  return whole(fmt::format("blk.{}.{}", place->layer, *theirs));
}

}  // namespace gemma
