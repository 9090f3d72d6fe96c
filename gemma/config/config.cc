#include <array>
#include <stdexcept>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/config/config.h>
#include <gemma/config/dtype_name.h>

namespace gemma {
namespace {

constexpr auto kLocal = AttentionType::kLocalSliding;
constexpr auto kGlobal = AttentionType::kGlobal;
constexpr auto kGemma3Tokenizer = "tokenizer/gemma3_cleaned_262144_v2.spiece.model";

struct Variant {
  std::string_view name;
  GemmaConfig (*make)(const std::string& dtype);
};

constexpr std::array kVariants{
    Variant{"2b", get_config_for_2b},       Variant{"7b", get_config_for_7b},
    Variant{"2b-v2", get_config_for_2b_v2}, Variant{"9b", get_config_for_9b},
    Variant{"27b", get_config_for_27b},     Variant{"270m", get_config_for_270m},
    Variant{"1b", get_config_for_1b},       Variant{"4b", get_config_for_4b},
    Variant{"12b", get_config_for_12b},     Variant{"27b_v3", get_config_for_27b_v3},
};

struct DtypeName {
  std::string_view name;
  c10::ScalarType dtype;
};

constexpr std::array kDtypeNames{
    DtypeName{"float16", c10::ScalarType::Half},
    DtypeName{"float32", c10::ScalarType::Float},
    DtypeName{"float", c10::ScalarType::Float},
    DtypeName{"bfloat16", c10::ScalarType::BFloat16},
};

// What all of Gemma 2 shares.
GemmaConfig gemma2(const std::string& dtype) {
  return {.architecture = Architecture::kGemma2,
          .dtype = dtype,
          .sliding_window_size = 4096,
          .final_logit_softcapping = 30.0,
          .attn_logit_softcapping = 50.0,
          .use_pre_ffw_norm = true,
          .use_post_ffw_norm = true};
}

// What all of Gemma 3 shares.
GemmaConfig gemma3(const std::string& dtype) {
  return {.architecture = Architecture::kGemma3,
          .vocab_size = 262144,
          .dtype = dtype,
          .tokenizer = kGemma3Tokenizer,
          .attn_types = {{kLocal, kLocal, kLocal, kLocal, kLocal, kGlobal}},
          .use_pre_ffw_norm = true,
          .use_post_ffw_norm = true,
          .rope_wave_length = {{{kLocal, 10'000}, {kGlobal, 1'000'000}}},
          .use_qk_norm = true};
}

// What the multimodal sizes of Gemma 3 share.
GemmaConfig gemma3_multimodal(const std::string& dtype) {
  auto config = gemma3(dtype);
  config.sliding_window_size = 1024;
  config.vision_config = SiglipVisionModelConfig{};
  config.rope_scaling_factor = 8;
  return config;
}

// Gemma 2's pattern. The reference writes it out for every layer; the list's length is part of the
// config that a user compares.
std::vector<AttentionType> alternating(int64_t num_layers) {
  std::vector<AttentionType> types(static_cast<size_t>(num_layers), kGlobal);
  for (size_t i = 0; i < types.size(); i += 2) types[i] = kLocal;
  return types;
}

void require_positive(std::string_view field, int64_t value) {
  if (value < 1) {
    throw std::invalid_argument(
        fmt::format("GemmaConfig: {} is {}, but must be at least 1", field, value));
  }
}

}  // namespace

std::string_view to_string(AttentionType type) {
  switch (type) {
    case AttentionType::kGlobal:
      return "GLOBAL";
    case AttentionType::kLocalSliding:
      return "LOCAL_SLIDING";
  }
  throw std::invalid_argument(fmt::format(
      "AttentionType {} is unknown; valid: 1 (GLOBAL), 2 (LOCAL_SLIDING)", static_cast<int>(type)));
}

std::string_view to_string(Architecture architecture) {
  switch (architecture) {
    case Architecture::kGemma1:
      return "GEMMA_1";
    case Architecture::kGemma2:
      return "GEMMA_2";
    case Architecture::kGemma3:
      return "GEMMA_3";
  }
  throw std::invalid_argument(
      fmt::format("Architecture {} is unknown; valid: 1 (GEMMA_1), 2 (GEMMA_2), 3 (GEMMA_3)",
                  static_cast<int>(architecture)));
}

c10::ScalarType dtype_from_string(std::string_view name) {
  for (const auto& entry : kDtypeNames) {
    if (entry.name == name) return entry.dtype;
  }
  throw std::invalid_argument(
      fmt::format("dtype '{}' is unknown; valid dtypes: float16, float, float32, bfloat16", name));
}

std::string_view dtype_to_string(c10::ScalarType dtype) {
  for (const auto& entry : kDtypeNames) {
    if (entry.dtype == dtype) return entry.name;
  }
  throw std::invalid_argument(fmt::format(
      "dtype {} cannot hold weights; valid dtypes: float16, float32, bfloat16", dtype_name(dtype)));
}

c10::ScalarType GemmaConfig::get_dtype() const { return dtype_from_string(dtype); }

AttentionType GemmaConfig::attn_type(int64_t layer) const {
  if (!attn_types) return AttentionType::kGlobal;
  return attn_types->at(static_cast<size_t>(layer) % attn_types->size());
}

void validate(const GemmaConfig& config) {
  to_string(config.architecture);
  config.get_dtype();
  require_positive("vocab_size", config.vocab_size);
  require_positive("max_position_embeddings", config.max_position_embeddings);
  require_positive("num_hidden_layers", config.num_hidden_layers);
  require_positive("num_attention_heads", config.num_attention_heads);
  require_positive("num_key_value_heads", config.num_key_value_heads);
  require_positive("hidden_size", config.hidden_size);
  require_positive("intermediate_size", config.intermediate_size);
  require_positive("head_dim", config.head_dim);
  if (config.head_dim % 2 != 0) {
    throw std::invalid_argument(fmt::format(
        "GemmaConfig: head_dim is {}, but rotary embedding needs an even one", config.head_dim));
  }
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    throw std::invalid_argument(fmt::format(
        "GemmaConfig: num_attention_heads ({}) must be a multiple of num_key_value_heads ({})",
        config.num_attention_heads, config.num_key_value_heads));
  }
  if (config.sliding_window_size && *config.sliding_window_size < 1) {
    throw std::invalid_argument(fmt::format(
        "GemmaConfig: sliding_window_size is {}; valid: 1 or more keys, or none for no window",
        *config.sliding_window_size));
  }
  if (config.attn_types && config.attn_types->empty()) {
    throw std::invalid_argument(
        "GemmaConfig: attn_types is empty; valid: one or more of GLOBAL, LOCAL_SLIDING, or none");
  }
  if (config.query_pre_attn_scalar) {
    require_positive("query_pre_attn_scalar", *config.query_pre_attn_scalar);
  }
  if (config.rope_scaling_factor) {
    require_positive("rope_scaling_factor", *config.rope_scaling_factor);
  }
  if (config.architecture == Architecture::kGemma3 && !config.rope_wave_length) {
    throw std::invalid_argument(
        "GemmaConfig: rope_wave_length must be given for GEMMA_3, e.g. "
        "{LOCAL_SLIDING: 10000, GLOBAL: 1000000}");
  }
}

GemmaConfig get_config_for_7b(const std::string& dtype) { return {.dtype = dtype}; }

GemmaConfig get_config_for_2b(const std::string& dtype) {
  return {.num_hidden_layers = 18,
          .num_attention_heads = 8,
          .num_key_value_heads = 1,
          .hidden_size = 2048,
          .intermediate_size = 16384,
          .dtype = dtype};
}

GemmaConfig get_config_for_2b_v2(const std::string& dtype) {
  auto config = gemma2(dtype);
  config.num_hidden_layers = 26;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.hidden_size = 2304;
  config.intermediate_size = 9216;
  config.attn_types = alternating(config.num_hidden_layers);
  return config;
}

GemmaConfig get_config_for_9b(const std::string& dtype) {
  auto config = gemma2(dtype);
  config.num_hidden_layers = 42;
  config.num_attention_heads = 16;
  config.num_key_value_heads = 8;
  config.hidden_size = 3584;
  config.intermediate_size = 14336;
  config.attn_types = alternating(config.num_hidden_layers);
  return config;
}

GemmaConfig get_config_for_27b(const std::string& dtype) {
  auto config = gemma2(dtype);
  config.num_hidden_layers = 46;
  config.num_attention_heads = 32;
  config.num_key_value_heads = 16;
  config.hidden_size = 4608;
  config.intermediate_size = 36864;
  config.head_dim = 128;
  config.query_pre_attn_scalar = 144;  // hidden_size / num_attention_heads.
  config.attn_types = alternating(config.num_hidden_layers);
  return config;
}

// Differs from model.py: it has no 270m; the sizes are those of the published model.
GemmaConfig get_config_for_270m(const std::string& dtype) {
  auto config = gemma3(dtype);
  config.max_position_embeddings = 32768;
  config.num_hidden_layers = 18;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 1;
  config.hidden_size = 640;
  config.intermediate_size = 2048;
  config.sliding_window_size = 512;
  return config;
}

GemmaConfig get_config_for_1b(const std::string& dtype) {
  auto config = gemma3(dtype);
  config.max_position_embeddings = 32768;
  config.num_hidden_layers = 26;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 1;
  config.hidden_size = 1152;
  config.intermediate_size = 6912;
  config.sliding_window_size = 512;
  return config;
}

GemmaConfig get_config_for_4b(const std::string& dtype) {
  auto config = gemma3_multimodal(dtype);
  config.num_hidden_layers = 34;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.hidden_size = 2560;
  config.intermediate_size = 10240;
  return config;
}

GemmaConfig get_config_for_12b(const std::string& dtype) {
  auto config = gemma3_multimodal(dtype);
  config.max_position_embeddings = 131072;
  config.num_hidden_layers = 48;
  config.num_attention_heads = 16;
  config.num_key_value_heads = 8;
  config.hidden_size = 3840;
  config.intermediate_size = 15360;
  return config;
}

GemmaConfig get_config_for_27b_v3(const std::string& dtype) {
  auto config = gemma3_multimodal(dtype);
  config.max_position_embeddings = 131072;
  config.num_hidden_layers = 62;
  config.num_attention_heads = 32;
  config.num_key_value_heads = 16;
  config.hidden_size = 5376;
  config.intermediate_size = 21504;
  config.head_dim = 128;
  config.query_pre_attn_scalar = 168;  // hidden_size / num_attention_heads.
  return config;
}

std::vector<std::string> model_variants() {
  std::vector<std::string> names;
  names.reserve(kVariants.size());
  for (const auto& variant : kVariants) names.emplace_back(variant.name);
  return names;
}

GemmaConfig get_model_config(std::string_view variant, const std::string& dtype) {
  dtype_from_string(dtype);
  for (const auto& [name, make] : kVariants) {
    if (name == variant) return make(dtype);
  }
  throw std::invalid_argument(fmt::format("variant '{}' is unknown; valid variants: {}", variant,
                                          fmt::join(model_variants(), ", ")));
}

}  // namespace gemma
