#include <algorithm>
#include <array>

#include <fmt/format.h>

#include <gemma/weights/family.h>
#include <gemma/weights/hf/hf_fields.h>
#include <gemma/weights/hf/hf_griffin.h>

namespace gemma {
namespace {

struct GriffinName {
  std::string_view theirs, ours;
};

constexpr std::string_view kHfEmbedding = "model.embed_tokens.weight";
constexpr std::string_view kHfHead = "lm_head.weight";
constexpr std::string_view kHfFinalNorm = "model.final_norm.weight";
constexpr std::string_view kHfLayers = "model.layers.";

// Behind the number of the layer: what differs in name alone.
constexpr std::array kRenamed = {
    GriffinName{"temporal_pre_norm.weight", "temporal_pre_norm.scale"},
    GriffinName{"channel_pre_norm.weight", "channel_pre_norm.scale"},
    GriffinName{"mlp_block.down_proj.weight", "mlp_block.ffw_down.weight"},
    GriffinName{"mlp_block.down_proj.bias", "mlp_block.ffw_down.bias"},
    GriffinName{"temporal_block.q_proj.weight", "attention_block.proj_q.weight"},
    GriffinName{"temporal_block.k_proj.weight", "attention_block.proj_k.weight"},
    GriffinName{"temporal_block.v_proj.weight", "attention_block.proj_v.weight"},
    GriffinName{"temporal_block.o_proj.weight", "attention_block.proj_final.weight"},
    GriffinName{"temporal_block.o_proj.bias", "attention_block.proj_final.bias"},
    GriffinName{"temporal_block.linear_x.weight", "recurrent_block.linear_x.weight"},
    GriffinName{"temporal_block.linear_x.bias", "recurrent_block.linear_x.bias"},
    GriffinName{"temporal_block.linear_y.weight", "recurrent_block.linear_y.weight"},
    GriffinName{"temporal_block.linear_y.bias", "recurrent_block.linear_y.bias"},
    GriffinName{"temporal_block.linear_out.weight", "recurrent_block.linear_out.weight"},
    GriffinName{"temporal_block.linear_out.bias", "recurrent_block.linear_out.bias"},
    GriffinName{"temporal_block.conv_1d.bias", "recurrent_block.conv_1d.b"},
    GriffinName{"temporal_block.rg_lru.recurrent_param", "recurrent_block.rg_lru.a_param"},
    GriffinName{"temporal_block.rg_lru.input_gate_weight", "recurrent_block.rg_lru.input_gate.w"},
    GriffinName{"temporal_block.rg_lru.input_gate_bias", "recurrent_block.rg_lru.input_gate.b"},
    GriffinName{"temporal_block.rg_lru.recurrent_gate_weight", "recurrent_block.rg_lru.a_gate.w"},
    GriffinName{"temporal_block.rg_lru.recurrent_gate_bias", "recurrent_block.rg_lru.a_gate.b"},
};

// "0.temporal_pre_norm.weight" of "model.layers.0.temporal_pre_norm.weight", in two.
struct InLayer {
  std::string_view number, name;
};

std::optional<InLayer> in_layer(std::string_view name) {
  if (!name.starts_with(kHfLayers)) return std::nullopt;
  name.remove_prefix(kHfLayers.size());
  const auto dot = name.find('.');
  if (dot == name.npos) return std::nullopt;
  return InLayer{name.substr(0, dot), name.substr(dot + 1)};
}

// The file's name of the other one of a pair: "up_proj" for "gate_proj".
std::string up_of(std::string gate) {
  constexpr std::string_view kGate = "gate_proj";
  return gate.replace(gate.rfind(kGate), kGate.size(), "up_proj");
}

// None for what comes with another tensor, or has no counterpart.
std::optional<Recipe> layer_recipe(const InLayer& layer, const TensorEntry& entry) {
  const auto& [number, name] = layer;
  const auto ours = [&](std::string_view end) { return fmt::format("blocks.{}.{}", number, end); };
  if (name == "mlp_block.up_proj.weight" || name == "mlp_block.up_proj.bias" ||
      name.ends_with(".rotary_emb.inv_freq")) {
    return std::nullopt;
  }
  if (name == "mlp_block.gate_proj.weight" && entry.sizes.size() == 2) {
    return Recipe{.name = ours("mlp_block.ffw_up.w"),
                  .parts = {entry.name, up_of(entry.name)},
                  .sizes = {2, entry.sizes[0], entry.sizes[1]},
                  .order = {0, 2, 1}};
  }
  if (name == "mlp_block.gate_proj.bias" && entry.sizes.size() == 1) {
    return Recipe{.name = ours("mlp_block.ffw_up.b"),
                  .parts = {entry.name, up_of(entry.name)},
                  .sizes = {2, 1, 1, entry.sizes[0]}};
  }
  if (name == "temporal_block.conv_1d.weight" && entry.sizes.size() == 3) {
    return Recipe{.name = ours("recurrent_block.conv_1d.w"),
                  .parts = {entry.name},
                  .sizes = {entry.sizes[0], entry.sizes[2]},
                  .order = {1, 0}};
  }
  const auto renamed = std::ranges::find(kRenamed, name, &GriffinName::theirs);
  return Recipe{.name = ours(renamed == kRenamed.end() ? name : renamed->ours),
                .parts = {entry.name}};
}

// What a tensor of a block becomes.
void add_hf_parts(std::string_view name, const torch::Tensor& tensor, StateDict& theirs) {
  constexpr std::string_view kBlocks = "blocks.";
  name.remove_prefix(kBlocks.size());
  const auto dot = name.find('.');
  const auto add = [&, number = name.substr(0, dot)](std::string_view end, const auto& value) {
    theirs.emplace_back(fmt::format("{}{}.{}", kHfLayers, number, end), value);
  };
  name.remove_prefix(dot + 1);
  if (name == "mlp_block.ffw_up.w") {
    add("mlp_block.gate_proj.weight", tensor[0].t());
    add("mlp_block.up_proj.weight", tensor[1].t());
  } else if (name == "mlp_block.ffw_up.b") {
    add("mlp_block.gate_proj.bias", tensor[0].flatten());
    add("mlp_block.up_proj.bias", tensor[1].flatten());
  } else if (name == "recurrent_block.conv_1d.w") {
    add("temporal_block.conv_1d.weight", tensor.t().unsqueeze(1));
  } else {
    add(std::ranges::find(kRenamed, name, &GriffinName::ours)->theirs, tensor);
  }
}

}  // namespace

std::optional<Layout> hf_griffin_layout(const Checkpoint& checkpoint,
                                        const std::vector<std::string>& names) {
  const bool is_griffin = std::ranges::find(names, kHfEmbedding) != names.end() &&
                          std::ranges::any_of(names, [](const auto& name) {
                            const auto layer = in_layer(name);
                            return layer && layer->name == "temporal_pre_norm.weight";
                          });
  if (!is_griffin) return std::nullopt;
  Layout layout{.name = "Hugging Face", .recipes = {}};
  std::string embedding, head;
  for (size_t i = 0; i < names.size(); ++i) {
    const auto& entry = checkpoint.entries()[i];
    const auto& name = names[i];
    if (const auto layer = in_layer(name)) {
      if (auto recipe = layer_recipe(*layer, entry)) layout.recipes.push_back(*std::move(recipe));
    } else if (name == kHfHead) {
      head = entry.name;
    } else if (name == kHfEmbedding) {
      embedding = entry.name;
      layout.recipes.push_back({.name = "embedder.input_embedding", .parts = {entry.name}});
    } else {
      layout.recipes.push_back(
          {.name = name == kHfFinalNorm ? "final_norm.scale" : name, .parts = {entry.name}});
    }
  }
  if (!head.empty()) layout.unembedding = Unembedding{head, embedding};
  return layout;
}

StateDict griffin_to_hf(const StateDict& weights) {
  StateDict theirs;
  for (const auto& [name, tensor] : weights) {
    if (name == "embedder.input_embedding") {
      theirs.emplace_back(kHfEmbedding, tensor);
      theirs.emplace_back(kHfHead, tensor);
    } else if (name == "final_norm.scale") {
      theirs.emplace_back(kHfFinalNorm, tensor);
    } else {
      add_hf_parts(name, tensor, theirs);
    }
  }
  return theirs;
}

recurrentgemma::GriffinHyperparameters griffin_from_hf(std::string_view json,
                                                       const std::string& path) {
  const auto value = parse_fields(json, path);
  const Fields fields(value, path);
  if (family_of(fields) != Family::kRecurrentGemma) {
    const auto type = fields.text("model_type");
    fields.refuse("model_type", fmt::format("is {}, but the weights are those of a recurrent_gemma",
                                            type ? fmt::format("\"{}\"", *type) : "not there"));
  }
  // What the network here has as constants.
  const auto check = [&](std::string_view field, double want) {
    if (fields.number(field).value_or(want) == want) return;
    fields.refuse(field, fmt::format("is {}, but every RecurrentGemma has {}",
                                     Fields::shown(*fields.find(field)), want));
  };
  check("rms_norm_eps", 1e-6);
  check("rope_theta", 10'000);
  check("partial_rotary_factor", 0.5);
  check("conv1d_width", 4);
  const auto activation = fields.text("hidden_activation");
  if (activation.value_or("gelu_pytorch_tanh") != "gelu_pytorch_tanh") {
    fields.refuse("hidden_activation",
                  "is not \"gelu_pytorch_tanh\", which every RecurrentGemma has");
  }
  constexpr std::string_view kScales = "embeddings_scale_by_sqrt_dim";
  return {.embeddings_scale_by_sqrt_dim = fields.find(kScales) == nullptr || fields.flag(kScales),
          .attention_window_size = fields.whole("attention_window_size").value_or(2048),
          .logits_soft_cap = fields.number("logits_soft_cap").value_or(30.0)};
}

}  // namespace gemma
