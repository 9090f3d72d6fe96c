#include <array>
#include <stdexcept>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/config/config.h>

namespace gemma {
namespace {

constexpr auto kLocal = AttentionType::kLocalSliding;
constexpr auto kGlobal = AttentionType::kGlobal;

// What the sizes of a family do not share.
struct Variant {
  std::string_view name;
  Architecture architecture;
  int64_t num_hidden_layers, num_attention_heads, num_key_value_heads;
  int64_t hidden_size, intermediate_size, head_dim, max_position_embeddings;
  std::optional<int64_t> sliding_window_size, query_pre_attn_scalar;
  bool sees_images = false;
};

constexpr auto kGemma1 = Architecture::kGemma1;
constexpr auto kGemma2 = Architecture::kGemma2;
constexpr auto kGemma3 = Architecture::kGemma3;
constexpr std::nullopt_t kNone = std::nullopt;

// The scalars of the largest are hidden_size / num_attention_heads.
// Differs from config.py: it has no 270m and no vaultgemma-1b; the sizes are those of the published
// models.
// clang-format off
constexpr std::array kVariants{
    //                       layers heads K/V  hidden   MLP     D  positions window scalar
    Variant{"2b",     kGemma1, 18,    8,   1,   2048,  16384,  256,   8192,  kNone,  kNone},
    Variant{"7b",     kGemma1, 28,   16,  16,   3072,  24576,  256,   8192,  kNone,  kNone},
    Variant{"2b-v2",  kGemma2, 26,    8,   4,   2304,   9216,  256,   8192,   4096,  kNone},
    Variant{"9b",     kGemma2, 42,   16,   8,   3584,  14336,  256,   8192,   4096,  kNone},
    Variant{"27b",    kGemma2, 46,   32,  16,   4608,  36864,  128,   8192,   4096,    144},
    Variant{"270m",   kGemma3, 18,    4,   1,    640,   2048,  256,  32768,    512,  kNone},
    Variant{"1b",     kGemma3, 26,    4,   1,   1152,   6912,  256,  32768,    512,  kNone},
    Variant{"4b",     kGemma3, 34,    8,   4,   2560,  10240,  256,   8192,   1024,  kNone, true},
    Variant{"12b",    kGemma3, 48,   16,   8,   3840,  15360,  256, 131072,   1024,  kNone, true},
    Variant{"27b_v3", kGemma3, 62,   32,  16,   5376,  21504,  128, 131072,   1024,    168, true},
    Variant{"vaultgemma-1b",
                      kGemma1, 26,    4,   4,   1152,   6912,  256,   1024,  kNone,  kNone},
};
// clang-format on

// Gemma 2's pattern. The reference writes it out for every layer; the list's length is part of the
// config that a user compares.
std::vector<AttentionType> alternating(int64_t num_layers) {
  std::vector<AttentionType> types(static_cast<size_t>(num_layers), kGlobal);
  for (size_t i = 0; i < types.size(); i += 2) types[i] = kLocal;
  return types;
}

void set_gemma2(GemmaConfig& config) {
  config.attn_types = alternating(config.num_hidden_layers);
  config.final_logit_softcapping = 30.0;
  config.attn_logit_softcapping = 50.0;
  config.use_pre_ffw_norm = true;
  config.use_post_ffw_norm = true;
}

void set_gemma3(GemmaConfig& config, bool sees_images) {
  config.vocab_size = 262144;
  config.tokenizer = "tokenizer/gemma3_cleaned_262144_v2.spiece.model";
  config.attn_types = {kLocal, kLocal, kLocal, kLocal, kLocal, kGlobal};
  config.use_pre_ffw_norm = true;
  config.use_post_ffw_norm = true;
  config.rope_wave_length = {{kLocal, 10'000}, {kGlobal, 1'000'000}};
  config.use_qk_norm = true;
  if (!sees_images) return;
  config.vision_config = SiglipVisionModelConfig{};
  config.rope_scaling_factor = 8;
}

GemmaConfig make(const Variant& variant, const std::string& dtype) {
  GemmaConfig config{.architecture = variant.architecture,
                     .max_position_embeddings = variant.max_position_embeddings,
                     .num_hidden_layers = variant.num_hidden_layers,
                     .num_attention_heads = variant.num_attention_heads,
                     .num_key_value_heads = variant.num_key_value_heads,
                     .hidden_size = variant.hidden_size,
                     .intermediate_size = variant.intermediate_size,
                     .head_dim = variant.head_dim,
                     .dtype = dtype,
                     .sliding_window_size = variant.sliding_window_size,
                     .query_pre_attn_scalar = variant.query_pre_attn_scalar};
  if (variant.architecture == kGemma2) set_gemma2(config);
  if (variant.architecture == kGemma3) set_gemma3(config, variant.sees_images);
  return config;
}

const Variant& find(std::string_view name) {
  for (const auto& variant : kVariants) {
    if (variant.name == name) return variant;
  }
  throw std::invalid_argument(fmt::format("variant '{}' is unknown; valid variants: {}", name,
                                          fmt::join(model_variants(), ", ")));
}

}  // namespace

std::vector<std::string> model_variants() {
  std::vector<std::string> names;
  names.reserve(kVariants.size());
  for (const auto& variant : kVariants) names.emplace_back(variant.name);
  return names;
}

GemmaConfig get_model_config(std::string_view variant, const std::string& dtype) {
  dtype_from_string(dtype);
  return make(find(variant), dtype);
}

GemmaConfig get_config_for_7b(const std::string& dtype) { return make(find("7b"), dtype); }
GemmaConfig get_config_for_2b(const std::string& dtype) { return make(find("2b"), dtype); }
GemmaConfig get_config_for_2b_v2(const std::string& dtype) { return make(find("2b-v2"), dtype); }
GemmaConfig get_config_for_9b(const std::string& dtype) { return make(find("9b"), dtype); }
GemmaConfig get_config_for_27b(const std::string& dtype) { return make(find("27b"), dtype); }
GemmaConfig get_config_for_270m(const std::string& dtype) { return make(find("270m"), dtype); }
GemmaConfig get_config_for_1b(const std::string& dtype) { return make(find("1b"), dtype); }
GemmaConfig get_config_for_4b(const std::string& dtype) { return make(find("4b"), dtype); }
GemmaConfig get_config_for_12b(const std::string& dtype) { return make(find("12b"), dtype); }
GemmaConfig get_config_for_27b_v3(const std::string& dtype) { return make(find("27b_v3"), dtype); }

}  // namespace gemma
