#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <span>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/mapped_file.h>
#include <gemma/config/fields.h>
#include <gemma/weights/family.h>
#include <gemma/weights/hf/hf_config.h>
#include <gemma/weights/hf/hf_family.h>
#include <gemma/weights/hf/hf_fields.h>
#include <gemma/weights/hf/hf_tokenizer.h>

namespace gemma {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using AttentionTypes = std::vector<AttentionType>;

constexpr auto kLocal = AttentionType::kLocalSliding;
constexpr auto kGlobal = AttentionType::kGlobal;
constexpr auto kConfigName = "config.json";
constexpr int64_t kMaxLayers = 10'000;
constexpr int64_t kPattern = 6;  // Of Gemma 3's layers every sixth is global.

// Gemma 3's embedding may have rows behind the vocabulary that stand for no token.
constexpr int64_t kGemma3Vocabulary = 262144;
constexpr int64_t kGemma3Padded = 262208;

// Parts of the names of fields that say how a model computes.
constexpr std::array<std::string_view, 20> kComputes = {
    "rope",     "rotary",    "attention", "attn", "sliding",    "window",  "cap",
    "expert",   "moe",       "scal",      "bias", "activation", "norm",    "multiplier",
    "sparsity", "per_layer", "kv",        "act_", "alibi",      "residual"};

// What is read, and what has another purpose though its name has such a part.
constexpr std::array<std::string_view, 14> kKnownText = {"rope_theta",
                                                         "rope_scaling",
                                                         "rope_parameters",
                                                         "hidden_act",
                                                         "hidden_activation",
                                                         "attention_bias",
                                                         "use_bidirectional_attention",
                                                         "attention_dropout",
                                                         "attn_implementation",
                                                         "_attn_implementation",
                                                         "output_attentions",
                                                         "initializer_range",
                                                         "_attn_implementation_autoset",
                                                         "_attn_implementation_internal"};

constexpr std::string_view kModelTypes = "gemma, gemma2, gemma3_text, gemma3, vaultgemma";

HfFamily hf_family_of(const Fields& fields, std::string_view model_type) {
  if (model_type == "gemma") return hf_family(Architecture::kGemma1);
  if (model_type == "gemma2") return hf_family(Architecture::kGemma2);
  if (model_type == "gemma3" || model_type == "gemma3_text") {
    return hf_family(Architecture::kGemma3);
  }
  if (model_type == "vaultgemma") return hf_vaultgemma();
  fields.refuse("model_type",
                fmt::format("is \"{}\"; valid: {}", printable(model_type), kModelTypes));
}

// Two names of one function.
void check_activation(const Fields& fields, std::string_view name) {
  const auto given = fields.text(name).value_or("gelu_pytorch_tanh");
  if (given == "gelu_pytorch_tanh" || given == "gelu_new") return;
  fields.refuse(name, fmt::format("is \"{}\", but Gemma has gelu_pytorch_tanh", printable(given)));
}

// Which tokens one sees: those before it, or all.
void check_direction(const Fields& fields, Family want) {
  constexpr auto kName = "use_bidirectional_attention";
  const bool is_encoder = want == Family::kEmbeddingGemma;
  if (fields.flag(kName) == is_encoder) return;
  fields.refuse(kName, is_encoder ? "is not true: a model that continues text and does not embed it"
                                  : "is true: a model that embeds text and does not continue it");
}

// What a file may say, and no model here does.
void check_is_supported(const Fields& fields) {
  check_activation(fields, "hidden_activation");
  // Means the same in the first files.
  if (fields.text("hidden_act") != "gelu") check_activation(fields, "hidden_act");
  if (fields.flag("attention_bias")) fields.refuse("attention_bias", "is true, but Gemma has none");
  if (fields.find("quantization_config")) {
    fields.refuse("quantization_config",
                  "is there: take the model in bfloat16, float16 or float32 and quantise it by "
                  "`gemma convert --quant`");
  }
}

bool is_local(const Fields& fields, const Json& type) {
  if (type == kHfLocalLayer) return true;
  if (type == kHfGlobalLayer) return false;
  fields.refuse("layer_types", fmt::format("holds {}; valid: sliding_attention, full_attention",
                                           Fields::shown(type)));
}

AttentionTypes pattern_of(int64_t period) {
  AttentionTypes types(static_cast<size_t>(period), kLocal);
  types.back() = kGlobal;
  return types;
}

// As long as the published variants have them: all of Gemma 2's layers, one period of Gemma 3's.
AttentionTypes attention_types(const Fields& fields, const GemmaConfig& config) {
  const auto layers = static_cast<size_t>(config.num_hidden_layers);
  const bool is_gemma2 = config.architecture == Architecture::kGemma2;
  const auto period =
      is_gemma2 ? 2
                : fields.whole("sliding_window_pattern")
                      .value_or(fields.whole("_sliding_window_pattern").value_or(kPattern));
  if (period > kMaxLayers) fields.refuse("sliding_window_pattern", "is more than 10000");
  const auto pattern = pattern_of(period);
  AttentionTypes types;
  for (size_t i = 0; i < layers; ++i) types.push_back(pattern[i % pattern.size()]);
  const auto regular = types;
  if (const auto* given = fields.find("layer_types")) {
    if (!given->is_array() || given->size() != layers) {
      fields.refuse("layer_types", fmt::format("is not a list of {} types", layers));
    }
    for (size_t i = 0; i < layers; ++i) {
      types[i] = is_local(fields, (*given)[i]) ? kLocal : kGlobal;
    }
  }
  return types == regular && !is_gemma2 ? pattern : types;
}

struct Rope {
  int64_t theta;
  double factor = 1;
};

// What rotates in another way.
void check_rope_fields(const Fields& fields, std::span<const std::string_view> known) {
  constexpr std::array<std::string_view, 1> kAny = {""};
  fields.check_others(known, kAny);
}

// {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0}, in which old releases had no base.
void read_rope(const Fields& fields, Rope& rope) {
  const auto* const name = fields.find("type") ? "type" : "rope_type";
  const auto type = fields.text(name).value_or("default");
  if (type != "default" && type != "linear") {
    fields.refuse(name, fmt::format("is \"{}\"; valid: default, linear", printable(type)));
  }
  constexpr std::array<std::string_view, 5> kKnown = {"type", "rope_type", "rope_theta", "factor",
                                                      "original_max_position_embeddings"};
  check_rope_fields(fields, kKnown);
  fields.read("rope_theta", rope.theta);
  if (type == "linear") fields.read("factor", rope.factor);
}

void check_rope(const Fields& fields, const Rope& rope, int64_t theta) {
  if (rope.theta == theta && rope.factor == 1) return;
  fields.refuse("rope_theta", fmt::format("and its scaling are {} and {}, but Gemma 1 and 2 have "
                                          "{} and 1",
                                          rope.theta, rope.factor, theta));
}

void read_rope(const Fields& fields, GemmaConfig& config) {
  const bool is_gemma3 = config.architecture == Architecture::kGemma3;
  Rope local{kHfLocalTheta}, global{is_gemma3 ? kHfGlobalTheta : kHfLocalTheta};
  fields.read("rope_theta", global.theta);
  fields.read("rope_local_base_freq", local.theta);
  if (const auto scaling = fields.object("rope_scaling")) read_rope(*scaling, global);
  if (const auto rope = fields.object("rope_parameters")) {
    const auto of_local = rope->object(kHfLocalLayer);
    const auto of_global = rope->object(kHfGlobalLayer);
    if (of_local) read_rope(*of_local, local);
    if (of_global) read_rope(*of_global, global);
    constexpr std::array<std::string_view, 2> kKnown = {kHfLocalLayer, kHfGlobalLayer};
    if (of_local || of_global) {
      check_rope_fields(*rope, kKnown);
    } else {
      read_rope(*rope, global);
    }
  }
  if (!is_gemma3) return check_rope(fields, global, kHfLocalTheta);
  if (local.factor != 1) fields.refuse("rope_parameters", "scales the local layers");
  config.rope_wave_length = {{kLocal, local.theta}, {kGlobal, global.theta}};
  if (global.factor == 1) return;
  if (global.factor != std::floor(global.factor) || global.factor > 1e6) {
    fields.refuse("factor",
                  fmt::format("of the rotary embedding is {}, not a whole number", global.factor));
  }
  config.rope_scaling_factor = static_cast<int64_t>(global.factor);
}

// What a text model computes otherwise.
void check_others(const Fields& fields, Architecture architecture) {
  std::vector<std::string_view> known(kKnownText.begin(), kKnownText.end());
  visit_fields<GemmaConfig>([&](const auto& field) {
    if (field.since <= architecture) known.push_back(field.hf);
  });
  if (architecture == Architecture::kGemma3) {
    known.insert(known.end(),
                 {"rope_local_base_freq", "sliding_window_pattern", "_sliding_window_pattern"});
  }
  fields.check_others(known, kComputes);
}

// What stands in the file as in the config.
template <typename Config>
void read_plain(const Fields& fields, Architecture architecture, Config& config) {
  visit_fields<Config>([&](const auto& field) {
    if constexpr (requires { fields.read(field.hf, config.*field.member); }) {
      if (!field.hf.empty() && field.since <= architecture) {
        fields.read(field.hf, config.*field.member);
      }
    }
  });
}

}  // namespace

GemmaConfig hf_text_config(const Fields& fields, const HfFamily& family) {
  check_is_supported(fields);
  check_others(fields, family.fields);
  auto config = family.defaults;
  read_plain(fields, family.fields, config);
  if (config.num_hidden_layers > kMaxLayers) fields.refuse("num_hidden_layers", "is over 10000");
  read_rope(fields, config);
  if (family.fields == Architecture::kGemma1) return config;
  if (config.query_pre_attn_scalar == config.head_dim) config.query_pre_attn_scalar = std::nullopt;
  config.attn_types = attention_types(fields, config);
  if (config.architecture != Architecture::kGemma1) return config;
  // The layer of Gemma 1 has no window.
  if (std::ranges::count(*config.attn_types, kLocal) > 0) {
    fields.refuse("layer_types", "is not full_attention of all layers, as it is in a VaultGemma");
  }
  config.attn_types = std::nullopt;
  config.sliding_window_size = std::nullopt;
  return config;
}

SiglipVisionModelConfig hf_vision_config(const Fields& fields, SiglipVisionModelConfig config) {
  constexpr std::array<std::string_view, 7> kKnown = {
      "hidden_act",          "attention_dropout",    "num_attention_heads", "layer_norm_eps",
      "attn_implementation", "_attn_implementation", "output_attentions"};
  fields.check_others(kKnown, kComputes);
  check_activation(fields, "hidden_act");
  read_plain(fields, Architecture::kGemma3, config);
  fields.read("patch_size", config.conv2d_patch_size);
  if (config.embedding_dim % config.num_attention_heads != 0) {
    fields.refuse("hidden_size", fmt::format("is {}, not a multiple of num_attention_heads ({})",
                                             config.embedding_dim, config.num_attention_heads));
  }
  config.head_dim = config.embedding_dim / config.num_attention_heads;
  config.num_key_value_heads = config.num_query_groups = config.num_attention_heads;
  return config;
}

std::string hf_dtype(const Fields& fields) {
  for (const auto* name : {"dtype", "torch_dtype"}) {
    const auto dtype = fields.text(name);
    if (!dtype) continue;
    if (*dtype == "float64") return "float32";  // No model computes in it.
    if (*dtype != "float32" && *dtype != "float16" && *dtype != "bfloat16") {
      fields.refuse(name,
                    fmt::format("is \"{}\"; valid: float32, float16, bfloat16", printable(*dtype)));
    }
    return *dtype;
  }
  return "float32";
}

namespace {

// With all rows of the embedding.
GemmaConfig read(std::string_view json, const std::string& path, Family want) {
  const auto value = parse_fields(json, path);
  const Fields top(value, path);
  const auto type = top.text("model_type");
  if (!type) top.refuse("model_type", fmt::format("is not there; valid: {}", kModelTypes));
  if (const auto family = family_of(top); family && *family != want) {
    top.refuse("model_type", fmt::format("is that of {}", other_family(*family)));
  }
  const auto family = hf_family_of(top, *type);
  check_is_supported(top);
  const auto inner = *type == "gemma3" ? top.object("text_config") : std::nullopt;
  const auto& text = inner ? *inner : top;
  check_direction(text, want);
  auto config = hf_text_config(text, family);
  if (const auto vision = top.object("vision_config"); vision && *type == "gemma3") {
    config.vision_config = hf_vision_config(*vision);
    top.read("mm_tokens_per_image", config.vision_config->encoding_sequence_length);
  }
  // There it counts both sides.
  if (want == Family::kEmbeddingGemma && config.sliding_window_size) {
    config.sliding_window_size = *config.sliding_window_size / 2 + 1;
  }
  config.dtype = hf_dtype(top);
  if (config.vision_config) config.vision_config->dtype = config.dtype;
  config.tokenizer = std::nullopt;
  try {
    validate(config);
  } catch (const std::invalid_argument& error) {
    refuse_file(path, error.what());
  }
  return config;
}

GemmaConfig read_directory(const fs::path& directory, Family want) {
  const MappedFile file(directory / kConfigName);
  const auto bytes = file.bytes();
  auto config =
      read({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file.path(), want);
  config.vocab_size = hf_vocabulary_rows(config.vocab_size, directory);
  return config;
}

}  // namespace

GemmaConfig config_from_hf(std::string_view text,
                           const std::string& path,
                           const std::optional<fs::path>& tokenizer) {
  auto config = read(text, path, Family::kGemma);
  if (tokenizer) {
    config.vocab_size = hf_vocabulary_rows(config.vocab_size, *tokenizer);
  } else if (config.vocab_size == kGemma3Padded) {
    config.vocab_size = kGemma3Vocabulary;
  }
  return config;
}

GemmaConfig read_hf_config(const fs::path& directory) {
  return read_directory(directory, Family::kGemma);
}

GemmaConfig read_hf_encoder_config(const fs::path& directory) {
  return read_directory(directory, Family::kEmbeddingGemma);
}

bool has_hf_config(const fs::path& path) {
  std::error_code unknown;
  return std::filesystem::is_regular_file(path / kConfigName, unknown);
}

}  // namespace gemma
