#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include <fmt/format.h>

#include <gemma/weights/checkpoint_config.h>
#include <gemma/weights/family.h>
#include <gemma/weights/gguf/gguf_config.h>
#include <gemma/weights/hf/hf_config.h>
#include <gemma/weights/weights.h>

namespace gemma {
namespace {

namespace fs = std::filesystem;

bool is_quantized(const WeightSource& source) {
  return std::ranges::any_of(source.entries(), [](const TensorEntry& entry) {
    return entry.name.ends_with(".weight_scaler");
  });
}

// What says it, with its own dtype and tokenizer.
std::optional<GemmaConfig> stated_config(const WeightSource& source, const std::string& variant) {
  if (!variant.empty()) return get_model_config(variant);
  const auto& checkpoint = source.checkpoint();
  if (checkpoint.metadata() != nullptr) return gguf_config(checkpoint);
  if (const auto json = checkpoint.config_json()) {
    return config_from_hf(*json, "config.json in " + source.path());
  }
  if (has_hf_config(source.path())) return read_hf_config(source.path());
  const auto detected = detect_variant(source);
  return detected ? std::optional(get_model_config(detected->variant)) : std::nullopt;
}

}  // namespace

std::string dtype_of_weights(const WeightSource& source) {
  for (const auto* name : {"embedder.weight_scaler", "text_token_embedder.weight_scaler",
                           "embedder.weight", "text_token_embedder.weight"}) {
    const auto* entry = source.find(name);
    if (entry == nullptr || !c10::isFloatingType(entry->dtype)) continue;
    if (entry->encoding != Encoding::kPlain) return "bfloat16";
    const bool is_half = entry->dtype == at::kHalf || entry->dtype == at::kBFloat16;
    return is_half ? std::string(dtype_to_string(entry->dtype)) : "float32";
  }
  return "float32";
}

std::optional<std::string> tokenizer_beside(const fs::path& path) {
  std::error_code unknown;
  const auto folder = fs::is_directory(path, unknown) ? path : path.parent_path();
  for (const auto* name : {"tokenizer.model", "tokenizer.json"}) {
    const auto tokenizer = folder / name;
    if (fs::exists(tokenizer, unknown)) return tokenizer.string();
  }
  return std::nullopt;
}

std::optional<std::string> tokenizer_of(const WeightSource& source) {
  const auto* const metadata = source.checkpoint().metadata();
  if (metadata != nullptr && metadata->contains("tokenizer.ggml.tokens")) return source.path();
  return tokenizer_beside(source.path());
}

std::optional<GemmaConfig> config_of(const WeightSource& source, const std::string& variant) {
  check_family(source, Family::kGemma, "GemmaConfig");
  auto config = stated_config(source, variant);
  if (!config) return std::nullopt;
  config->dtype = dtype_of_weights(source);
  if (config->vision_config) config->vision_config->dtype = config->dtype;
  config->quant = is_quantized(source);
  config->tokenizer = tokenizer_of(source);
  return config;
}

GemmaConfig config_from_pretrained(const fs::path& path) {
  if (has_hf_config(path)) {
    auto config = read_hf_config(path);
    config.tokenizer = tokenizer_beside(path);
    return config;
  }
  const auto source = WeightSource::open(path);
  auto config = config_of(source);
  if (!config) {
    refuse_file(path.string(),
                fmt::format("says nowhere what model it is, and {}; put a config.json beside the "
                            "weights, in a directory of their own",
                            why_unknown(source)));
  }
  return *std::move(config);
}

}  // namespace gemma
