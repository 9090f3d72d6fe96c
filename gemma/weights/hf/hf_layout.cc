#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include <gemma/weights/hf/hf_layout.h>
#include <gemma/weights/hf/hf_tokenizer.h>

namespace gemma {
namespace {

struct Renaming {
  std::string_view theirs, ours;
};

// The prefixes that the releases of transformers gave to the parts of a model; the first of each is
// what the others become.
constexpr std::array kPrefixes = {
    Renaming{"model.language_model.", "model."},
    Renaming{"language_model.model.", "model."},
    Renaming{"language_model.lm_head.", "lm_head."},
    Renaming{"model.vision_tower.vision_model.", "vision_tower."},
    Renaming{"model.vision_tower.", "vision_tower."},
    Renaming{"vision_tower.vision_model.", "vision_tower."},
    Renaming{"model.multi_modal_projector.", "multi_modal_projector."},
    // A text model without a head.
    Renaming{"embed_tokens.", "model.embed_tokens."},
    Renaming{"layers.", "model.layers."},
    Renaming{"norm.", "model.norm."},
};

// Of a language model's tensors, the ends of the names that differ, but for queries, keys and
// values.
constexpr std::array kTextEndings = {
    Renaming{".self_attn.q_norm.weight", ".self_attn.query_norm.weight"},
    Renaming{".self_attn.k_norm.weight", ".self_attn.key_norm.weight"},
};

// The norm before the MLP is the second of a layer of Gemma 1, and has its name there. VaultGemma,
// whose layers have two norms as well, calls it as Gemma 2 does.
constexpr Renaming kVaultNorm{".pre_feedforward_layernorm.weight",
                              ".post_attention_layernorm.weight"};

// Of the vision part, the beginnings. On our side the last one begins others, too.
constexpr std::array kVision = {
    Renaming{"vision_tower.encoder.layers.", "siglip_vision_model.encoder_blocks."},
    Renaming{"vision_tower.post_layernorm.", "siglip_vision_model.final_norm."},
    Renaming{"multi_modal_projector.mm_soft_emb_norm.", "mm_soft_embedding_norm."},
    Renaming{"vision_tower.embeddings.", "siglip_vision_model."},
};

// And the ends.
constexpr std::array kVisionEndings = {
    Renaming{".self_attn.out_proj.weight", ".self_attn.o_proj.weight"},
    Renaming{".self_attn.out_proj.bias", ".self_attn.o_proj.bias"},
};

constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
constexpr std::string_view kHead = "lm_head.weight";
constexpr std::string_view kProjection = "multi_modal_projector.mm_input_projection_weight";

bool replace_prefix(std::string& name, const Renaming& renaming) {
  if (!name.starts_with(renaming.theirs)) return false;
  name.replace(0, renaming.theirs.size(), renaming.ours);
  return true;
}

bool replace_ending(std::string& name, const Renaming& renaming) {
  if (!name.ends_with(renaming.theirs)) return false;
  name.replace(name.size() - renaming.theirs.size(), renaming.theirs.size(), renaming.ours);
  return true;
}

// What has no counterpart: rotary tables of old releases, position numbers, and the classifier that
// SigLIP has beside its encoder.
bool is_passed_over(std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".position_ids") ||
         name.starts_with("vision_tower.head.");
}

Renaming reversed(const Renaming& renaming) { return {renaming.ours, renaming.theirs}; }

// The prefixes that transformers writes: those of its first release with Gemma 3, which all read.
std::string with_prefix(std::string name, bool is_multimodal) {
  if (!is_multimodal) return name;
  if (name.starts_with("model.")) return "language_model." + name;
  constexpr std::string_view kTower = "vision_tower.";
  if (name.starts_with(kTower)) name.insert(kTower.size(), "vision_model.");
  return name;
}

std::string text_name(std::string name) {
  for (const auto& ending : kTextEndings) {
    if (replace_ending(name, reversed(ending))) break;
  }
  return name;
}

std::string vision_name(std::string name) {
  for (const auto& beginning : kVision) {
    if (replace_prefix(name, reversed(beginning))) break;
  }
  for (const auto& ending : kVisionEndings) {
    if (replace_ending(name, reversed(ending))) break;
  }
  return name;
}

// The tensors of a checkpoint under the plain names, and what they become.
class Reader {
 public:
  Reader(const Checkpoint& checkpoint, const std::vector<std::string>& names)
      : checkpoint_(checkpoint), names_(hf_plain_names(names)) {
    for (size_t i = 0; i < names.size(); ++i) {
      const auto& entry = checkpoint.entries()[i];
      is_multimodal_ = is_multimodal_ || names_[i].starts_with("vision_tower.");
      if (names_[i] == kEmbedding) embedding_ = &entry;
    }
  }

  std::optional<Layout> layout() const {
    if (embedding_ == nullptr) return std::nullopt;
    Layout layout{.name = "Hugging Face", .recipes = {}};
    for (size_t i = 0; i < names_.size(); ++i) {
      const auto& entry = checkpoint_.entries()[i];
      if (names_[i] == kHead) {
        layout.unembedding = {entry.name, embedding_->name};
      } else if (auto recipe = recipe_of(names_[i], entry)) {
        layout.recipes.push_back(std::move(*recipe));
      }
    }
    return layout;
  }

 private:
  std::optional<Recipe> recipe_of(const std::string& name, const TensorEntry& entry) const {
    if (is_passed_over(name)) return std::nullopt;
    if (name == kEmbedding) return embedding();
    if (name == kProjection) {
      return Recipe{.name = "mm_input_projection.weight", .parts = {entry.name}, .order = {1, 0}};
    }
    return name.starts_with("model.") ? text(name, entry) : vision(name, entry);
  }

  Recipe embedding() const {
    Recipe recipe{.name = is_multimodal_ ? "text_token_embedder.weight" : "embedder.weight",
                  .parts = {embedding_->name}};
    if (embedding_->sizes.empty()) return recipe;
    const auto rows = hf_vocabulary_rows(embedding_->sizes[0], checkpoint_.path());
    if (rows < embedding_->sizes[0]) recipe.rows = rows;
    return recipe;
  }

  static std::optional<Recipe> text(std::string name, const TensorEntry& entry) {
    for (const std::string_view other : {".self_attn.k_proj.weight", ".self_attn.v_proj.weight"}) {
      if (name.ends_with(other)) return std::nullopt;  // Comes with the queries.
    }
    if (replace_ending(name, {".self_attn.q_proj.weight", ".self_attn.qkv_proj.weight"})) {
      return Recipe{.name = name, .parts = attention_parts(entry.name)};
    }
    for (const auto& ending : kTextEndings) {
      if (replace_ending(name, ending)) break;
    }
    return Recipe{.name = name, .parts = {entry.name}};
  }

  static std::vector<Part> attention_parts(const std::string& queries) {
    std::vector<Part> parts;
    for (const char letter : {'q', 'k', 'v'}) {
      parts.emplace_back(queries);
      parts.back().name[queries.size() - std::string_view("q_proj.weight").size()] = letter;
    }
    return parts;
  }

  static Recipe vision(std::string name, const TensorEntry& entry) {
    for (const auto& beginning : kVision) {
      if (replace_prefix(name, beginning)) break;
    }
    for (const auto& ending : kVisionEndings) {
      if (replace_ending(name, ending)) break;
    }
    return {.name = name, .parts = {entry.name}};
  }

  const Checkpoint& checkpoint_;
  std::vector<std::string> names_;  // Plain, one an entry.
  const TensorEntry* embedding_ = nullptr;
  bool is_multimodal_ = false;
};

}  // namespace

std::optional<Layout> hf_layout(const Checkpoint& checkpoint,
                                const std::vector<std::string>& names) {
  return Reader(checkpoint, names).layout();
}

std::string hf_plain_name(std::string name) {
  for (const auto& prefix : kPrefixes) {
    if (replace_prefix(name, prefix)) break;
  }
  return name;
}

std::vector<std::string> hf_plain_names(std::vector<std::string> names) {
  std::ranges::transform(names, names.begin(), hf_plain_name);
  const bool has_norm_after_attention =
      std::ranges::any_of(names, [](const auto& name) { return name.ends_with(kVaultNorm.ours); });
  if (has_norm_after_attention) return names;
  for (auto& name : names) replace_ending(name, kVaultNorm);
  return names;
}

std::vector<HfPart> hf_parts(const std::string& name, int64_t size, const GemmaConfig& config) {
  const bool is_multimodal = config.vision_config.has_value();
  const auto whole = [&](std::string theirs, bool transposed = false) -> std::vector<HfPart> {
    return {{with_prefix(std::move(theirs), is_multimodal), 0, size, transposed}};
  };
  if (name == "embedder.weight" || name == "text_token_embedder.weight") {
    return whole(std::string(kEmbedding));
  }
  if (name == "mm_input_projection.weight") return whole(std::string(kProjection), true);
  if (!name.starts_with("model.")) return whole(vision_name(name));
  const auto queries = config.num_attention_heads * config.head_dim;
  const auto keys = config.num_key_value_heads * config.head_dim;
  std::vector<HfPart> parts;
  for (const auto& [letter, first, rows] :
       {std::tuple{"q", int64_t{0}, queries}, std::tuple{"k", queries, keys},
        std::tuple{"v", queries + keys, keys}}) {
    auto theirs = name;
    const auto ending = fmt::format(".self_attn.{}_proj.weight", letter);
    if (!replace_ending(theirs, {".self_attn.qkv_proj.weight", ending}))
      return whole(text_name(name));
    parts.push_back({with_prefix(theirs, is_multimodal), first, rows});
  }
  return parts;
}

}  // namespace gemma
