#include <array>
#include <stdexcept>

#include <fmt/format.h>

#include <gemma/config/config.h>
#include <gemma/config/dtype_name.h>
#include <gemma/config/fields.h>

namespace gemma {
namespace {

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

void require_positive(std::string_view field, int64_t value) {
  if (value < 1) {
    throw std::invalid_argument(
        fmt::format("GemmaConfig: {} is {}, but must be at least 1", field, value));
  }
}

void require_positive(std::string_view field, const std::optional<int64_t>& value) {
  if (value && *value < 1) {
    throw std::invalid_argument(
        fmt::format("GemmaConfig: {} is {}, but must be at least 1, or none", field, *value));
  }
}

// Of other types any value may do.
template <typename T>
void require_positive(std::string_view, const T&) {}

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
  visit_fields<GemmaConfig>(
      [&](const auto& field) { require_positive(field.name, config.*field.member); });
  if (config.head_dim % 2 != 0) {
    throw std::invalid_argument(fmt::format(
        "GemmaConfig: head_dim is {}, but rotary embedding needs an even one", config.head_dim));
  }
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    throw std::invalid_argument(fmt::format(
        "GemmaConfig: num_attention_heads ({}) must be a multiple of num_key_value_heads ({})",
        config.num_attention_heads, config.num_key_value_heads));
  }
  if (config.attn_types && config.attn_types->empty()) {
    throw std::invalid_argument(
        "GemmaConfig: attn_types is empty; valid: one or more of GLOBAL, LOCAL_SLIDING, or none");
  }
  if (config.architecture == Architecture::kGemma3 && !config.rope_wave_length) {
    throw std::invalid_argument(
        "GemmaConfig: rope_wave_length must be given for GEMMA_3, e.g. "
        "{LOCAL_SLIDING: 10000, GLOBAL: 1000000}");
  }
}

}  // namespace gemma
