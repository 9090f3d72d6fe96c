#include <algorithm>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/mapped_file.h>
#include <gemma/weights/checkpoint_config.h>
#include <gemma/weights/family.h>
#include <gemma/weights/hf/hf_config.h>
#include <gemma/weights/hf/hf_paligemma.h>
#include <gemma/weights/paligemma_checkpoint.h>

namespace gemma {
namespace {

constexpr std::string_view kPositions = "siglip_vision_model.position_embedding.weight";
constexpr std::string_view kTokens = "text_token_embedder.weight";
constexpr std::string_view kGate = "model.layers.0.mlp.gate_proj.weight";

std::optional<PaliGemmaConfig> stated_paligemma(const WeightSource& source) {
  const std::filesystem::path path = source.path();
  if (const auto json = source.checkpoint().config_json()) {
    return paligemma_from_hf(*json, "config.json in " + source.path(), path.parent_path());
  }
  if (!has_hf_config(path)) return std::nullopt;
  const MappedFile file(path / "config.json");
  const auto bytes = file.bytes();
  return paligemma_from_hf({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file.path(),
                           path);
}

// By the shapes that tell the published ones apart.
std::optional<PaliGemmaConfig> detected_paligemma(const WeightSource& source) {
  const auto sizes_of = [&](std::string_view name) {
    const auto* const entry = source.find(name);
    return entry == nullptr ? std::vector<int64_t>() : entry->sizes;
  };
  const auto embedding = sizes_of(kTokens);
  for (const auto& name : paligemma_variants()) {
    auto config = get_paligemma_config(name);
    const auto& text = config.text_config;
    const auto last = fmt::format("model.layers.{}.input_layernorm.weight", text.num_hidden_layers);
    const bool fits = embedding.size() == 2 && embedding[1] == text.hidden_size &&
                      sizes_of(kGate) == std::vector{text.intermediate_size, text.hidden_size} &&
                      sizes_of(kPositions) == std::vector{config.image_seq_length(),
                                                          config.vision_config.embedding_dim} &&
                      !source.contains(last);
    if (!fits) continue;
    config.text_config.vocab_size = embedding[0];
    return config;
  }
  return std::nullopt;
}

}  // namespace

PaliGemmaConfig paligemma_config_of(const WeightSource& source) {
  check_family(source, Family::kPaliGemma, "PaliGemmaConfig");
  auto config = stated_paligemma(source);
  if (!config) config = detected_paligemma(source);
  if (!config) {
    refuse_file(source.path(),
                fmt::format("is of a PaliGemma that nobody published ({}), and nothing says its "
                            "config: put a config.json of Hugging Face beside the weights, in a "
                            "directory of their own",
                            fmt::join(paligemma_variants(), ", ")));
  }
  config->text_config.dtype = config->vision_config.dtype = dtype_of_weights(source);
  config->text_config.tokenizer = tokenizer_of(source);
  return *std::move(config);
}

PaliGemmaConfig paligemma_config_from_pretrained(const std::filesystem::path& path) {
  return paligemma_config_of(WeightSource::open(path));
}

}  // namespace gemma
