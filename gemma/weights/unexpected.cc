#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <set>
#include <span>
#include <string_view>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/weights/unexpected.h>

namespace gemma {
namespace {

enum class Kind { kAdapter, kQuantized, kLayer, kBias, kOther, kHarmless };

// Parts of the names that peft gives to the factors of adapters, and to what they belong to.
constexpr std::array<std::string_view, 6> kAdapterParts = {
    "lora_", ".base_layer.", ".modules_to_save.", ".original_module.", "hada_w", ".ia3_l"};

// The last parts of what GPTQ, AWQ, bitsandbytes and float8 keep beside or instead of a weight.
constexpr std::array<std::string_view, 12> kQuantizedEnds = {
    "qweight", "qzeros",       "scales",           "g_idx",       "absmax",        "SCB",
    "CB",      "weight_scale", "weight_scale_inv", "input_scale", "weight_packed", "quant_map"};

std::string_view last_part(std::string_view name) { return name.substr(name.rfind('.') + 1); }

// 12 of "model.layers.12.mlp.gate_proj.weight".
std::optional<int64_t> layer_of(std::string_view name) {
  constexpr std::string_view kLayers = "model.layers.";
  int64_t layer = 0;
  if (!name.starts_with(kLayers)) return std::nullopt;
  name.remove_prefix(kLayers.size());
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  const bool is_number = error == std::errc() && end != name.data() + name.size() && *end == '.';
  return is_number ? std::optional(layer) : std::nullopt;
}

template <typename Names>
int64_t count_layers(const Names& names) {
  int64_t count = 0;
  for (const auto& name : names) count = std::max(count, layer_of(name).value_or(-1) + 1);
  return count;
}

// Tells kinds apart, for a model.
class Kinds {
 public:
  explicit Kinds(const StateDict& weights) {
    std::vector<std::string_view> names;
    for (const auto& [name, _] : weights) {
      names.push_back(name);
      for_modules(name, [&](std::string_view module) { return !modules_.insert(module).second; });
    }
    layers_ = count_layers(names);
  }

  int64_t layers() const { return layers_; }

  Kind of(std::string_view name) const {
    const auto has = [name](std::string_view part) { return name.find(part) != name.npos; };
    if (std::ranges::any_of(kAdapterParts, has)) return Kind::kAdapter;
    // gemma_pytorch passes a head over, as the embedding stands for it; what a head has besides
    // does count.
    const bool is_of_head = name.starts_with("lm_head.") && name != "lm_head.weight";
    if (!is_of_head && !is_below_module(name)) return Kind::kHarmless;
    if (layer_of(name).value_or(0) >= std::max<int64_t>(layers_, 1)) return Kind::kLayer;
    if (last_part(name) == "bias") return Kind::kBias;
    const bool is_quantized =
        std::ranges::find(kQuantizedEnds, last_part(name)) != kQuantizedEnds.end() ||
        has(".quant_state.");
    return is_quantized ? Kind::kQuantized : Kind::kOther;
  }

 private:
  // visit("a.b"), then visit("a") for "a.b.c", until it returns true; whether it did.
  template <typename Visit>
  static bool for_modules(std::string_view name, Visit&& visit) {
    for (auto dot = name.rfind('.'); dot != name.npos; dot = name.rfind('.')) {
      name = name.substr(0, dot);
      if (visit(name)) return true;
    }
    return false;
  }

  bool is_below_module(std::string_view name) const {
    return for_modules(name, [this](std::string_view module) { return modules_.contains(module); });
  }

  std::set<std::string_view> modules_;  // Views of the weights' names.
  int64_t layers_ = 0;
};

std::string_view meaning_of(Kind kind) {
  switch (kind) {
    case Kind::kAdapter:
      return "of an adapter, such as LoRA, that would not be applied: merge it into the weights "
             "with merge_and_unload() of peft, and save them again";
    case Kind::kQuantized:
      return "of weights that another program quantised: take the model in bfloat16, float16 or "
             "float32, or a GGUF file";
    case Kind::kBias:
      return "biases, which Gemma does not have: is it another model?";
    default:
      return "of modules that Gemma has, but no weights of Gemma: is it another model?";
  }
}

std::string layers_text(const WeightSource& source, int64_t layers) {
  std::vector<std::string_view> names;
  for (const auto& entry : source.entries()) names.push_back(entry.name);
  const auto detected = detect_variant(source);
  return fmt::format("has {} layers, but the model's config says {}: {}", count_layers(names),
                     layers,
                     detected ? fmt::format("the file is of variant '{}'", detected->variant)
                              : "give the config of this file");
}

}  // namespace

std::string some_of(const std::vector<std::string>& names) {
  constexpr size_t kShown = 3;
  const auto shown = std::span(names).first(std::min(names.size(), kShown));
  auto text = fmt::format("'{}'", fmt::join(shown, "', '"));
  if (names.size() > kShown) text += fmt::format(" and {} more", names.size() - kShown);
  return text;
}

void refuse_changes(const WeightSource& source,
                    const StateDict& weights,
                    const std::vector<std::string>& names,
                    InsteadOfWeights instead) {
  const Kinds kinds(weights);
  const auto refused = instead == InsteadOfWeights::kYes
                           ? std::vector{Kind::kAdapter, Kind::kQuantized}
                           : std::vector{Kind::kLayer, Kind::kBias, Kind::kOther};
  for (const auto kind : refused) {
    std::vector<std::string> found;
    for (const auto& name : names) {
      if (kinds.of(name) == kind) found.push_back(printable(source.name_in_file(name)));
    }
    if (found.empty()) continue;
    refuse_file(source.path(),
                kind == Kind::kLayer
                    ? layers_text(source, kinds.layers())
                    : fmt::format("its tensors {} are {}", some_of(found), meaning_of(kind)));
  }
}

}  // namespace gemma
