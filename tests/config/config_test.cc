#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/config/config.h>
#include <gemma/generate/causal_lm.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::tiny_config;

constexpr auto kGlobal = AttentionType::kGlobal;
constexpr auto kLocal = AttentionType::kLocalSliding;

constexpr auto kTokenizer = "tokenizer/tokenizer.model";
constexpr auto kTokenizer3 = "tokenizer/gemma3_cleaned_262144_v2.spiece.model";

// What config.py writes for a variant. 270m is not there; its row is the published model's.
struct VariantRow {
  std::string name = {};
  Architecture architecture = {};
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t head_dim = 0;
  std::string tokenizer = {};
  std::optional<std::vector<AttentionType>> attn_types = std::nullopt;
  std::optional<int64_t> sliding_window_size = std::nullopt;
  std::optional<double> final_logit_softcapping = std::nullopt;
  std::optional<double> attn_logit_softcapping = std::nullopt;
  std::optional<int64_t> query_pre_attn_scalar = std::nullopt;
  bool ffw_norms = false;  // Both the one before and the one after.
  std::optional<std::map<AttentionType, int64_t>> rope_wave_length = std::nullopt;
  bool use_qk_norm = false;
  bool vision = false;
  std::optional<int64_t> rope_scaling_factor = std::nullopt;
  int64_t parameters = 0;  // Of the text model.
};

std::ostream& operator<<(std::ostream& out, const VariantRow& row) { return out << row.name; }

std::vector<AttentionType> alternating(int64_t pairs) {
  std::vector<AttentionType> types;
  for (int64_t i = 0; i < pairs; ++i) types.insert(types.end(), {kLocal, kGlobal});
  return types;
}

std::vector<VariantRow> variant_rows() {
  const std::vector<AttentionType> five_to_one = {kLocal, kLocal, kLocal, kLocal, kLocal, kGlobal};
  const std::map<AttentionType, int64_t> waves = {{kLocal, 10'000}, {kGlobal, 1'000'000}};
  return {
      {.name = "2b",
       .architecture = Architecture::kGemma1,
       .vocab_size = 256'000,
       .max_position_embeddings = 8192,
       .num_hidden_layers = 18,
       .num_attention_heads = 8,
       .num_key_value_heads = 1,
       .hidden_size = 2048,
       .intermediate_size = 16'384,
       .head_dim = 256,
       .tokenizer = kTokenizer,
       .parameters = 2'506'172'416},
      {.name = "7b",
       .architecture = Architecture::kGemma1,
       .vocab_size = 256'000,
       .max_position_embeddings = 8192,
       .num_hidden_layers = 28,
       .num_attention_heads = 16,
       .num_key_value_heads = 16,
       .hidden_size = 3072,
       .intermediate_size = 24'576,
       .head_dim = 256,
       .tokenizer = kTokenizer,
       .parameters = 8'537'680'896},
      {.name = "2b-v2",
       .architecture = Architecture::kGemma2,
       .vocab_size = 256'000,
       .max_position_embeddings = 8192,
       .num_hidden_layers = 26,
       .num_attention_heads = 8,
       .num_key_value_heads = 4,
       .hidden_size = 2304,
       .intermediate_size = 9216,
       .head_dim = 256,
       .tokenizer = kTokenizer,
       .attn_types = alternating(13),
       .sliding_window_size = 4096,
       .final_logit_softcapping = 30.0,
       .attn_logit_softcapping = 50.0,
       .ffw_norms = true,
       .parameters = 2'614'341'888},
      {.name = "9b",
       .architecture = Architecture::kGemma2,
       .vocab_size = 256'000,
       .max_position_embeddings = 8192,
       .num_hidden_layers = 42,
       .num_attention_heads = 16,
       .num_key_value_heads = 8,
       .hidden_size = 3584,
       .intermediate_size = 14'336,
       .head_dim = 256,
       .tokenizer = kTokenizer,
       .attn_types = alternating(21),
       .sliding_window_size = 4096,
       .final_logit_softcapping = 30.0,
       .attn_logit_softcapping = 50.0,
       .ffw_norms = true,
       .parameters = 9'241'705'984},
      {.name = "27b",
       .architecture = Architecture::kGemma2,
       .vocab_size = 256'000,
       .max_position_embeddings = 8192,
       .num_hidden_layers = 46,
       .num_attention_heads = 32,
       .num_key_value_heads = 16,
       .hidden_size = 4608,
       .intermediate_size = 36'864,
       .head_dim = 128,
       .tokenizer = kTokenizer,
       .attn_types = alternating(23),
       .sliding_window_size = 4096,
       .final_logit_softcapping = 30.0,
       .attn_logit_softcapping = 50.0,
       .query_pre_attn_scalar = 144,
       .ffw_norms = true,
       .parameters = 27'227'128'320},
      {.name = "270m",
       .architecture = Architecture::kGemma3,
       .vocab_size = 262'144,
       .max_position_embeddings = 32'768,
       .num_hidden_layers = 18,
       .num_attention_heads = 4,
       .num_key_value_heads = 1,
       .hidden_size = 640,
       .intermediate_size = 2048,
       .head_dim = 256,
       .tokenizer = kTokenizer3,
       .attn_types = five_to_one,
       .sliding_window_size = 512,
       .ffw_norms = true,
       .rope_wave_length = waves,
       .use_qk_norm = true,
       .parameters = 268'098'176},
      {.name = "1b",
       .architecture = Architecture::kGemma3,
       .vocab_size = 262'144,
       .max_position_embeddings = 32'768,
       .num_hidden_layers = 26,
       .num_attention_heads = 4,
       .num_key_value_heads = 1,
       .hidden_size = 1152,
       .intermediate_size = 6912,
       .head_dim = 256,
       .tokenizer = kTokenizer3,
       .attn_types = five_to_one,
       .sliding_window_size = 512,
       .ffw_norms = true,
       .rope_wave_length = waves,
       .use_qk_norm = true,
       .parameters = 999'885'952},
      {.name = "4b",
       .architecture = Architecture::kGemma3,
       .vocab_size = 262'144,
       .max_position_embeddings = 8192,
       .num_hidden_layers = 34,
       .num_attention_heads = 8,
       .num_key_value_heads = 4,
       .hidden_size = 2560,
       .intermediate_size = 10'240,
       .head_dim = 256,
       .tokenizer = kTokenizer3,
       .attn_types = five_to_one,
       .sliding_window_size = 1024,
       .ffw_norms = true,
       .rope_wave_length = waves,
       .use_qk_norm = true,
       .vision = true,
       .rope_scaling_factor = 8,
       .parameters = 3'880'099'328},
      {.name = "12b",
       .architecture = Architecture::kGemma3,
       .vocab_size = 262'144,
       .max_position_embeddings = 131'072,
       .num_hidden_layers = 48,
       .num_attention_heads = 16,
       .num_key_value_heads = 8,
       .hidden_size = 3840,
       .intermediate_size = 15'360,
       .head_dim = 256,
       .tokenizer = kTokenizer3,
       .attn_types = five_to_one,
       .sliding_window_size = 1024,
       .ffw_norms = true,
       .rope_wave_length = waves,
       .use_qk_norm = true,
       .vision = true,
       .rope_scaling_factor = 8,
       .parameters = 11'765'788'416},
      {.name = "27b_v3",
       .architecture = Architecture::kGemma3,
       .vocab_size = 262'144,
       .max_position_embeddings = 131'072,
       .num_hidden_layers = 62,
       .num_attention_heads = 32,
       .num_key_value_heads = 16,
       .hidden_size = 5376,
       .intermediate_size = 21'504,
       .head_dim = 128,
       .tokenizer = kTokenizer3,
       .attn_types = five_to_one,
       .sliding_window_size = 1024,
       .query_pre_attn_scalar = 168,
       .ffw_norms = true,
       .rope_wave_length = waves,
       .use_qk_norm = true,
       .vision = true,
       .rope_scaling_factor = 8,
       .parameters = 27'009'002'240},
      {.name = "vaultgemma-1b",
       .architecture = Architecture::kGemma1,
       .vocab_size = 256'000,
       .max_position_embeddings = 1024,
       .num_hidden_layers = 26,
       .num_attention_heads = 4,
       .num_key_value_heads = 4,
       .hidden_size = 1152,
       .intermediate_size = 6912,
       .head_dim = 256,
       .tokenizer = kTokenizer,
       .parameters = 1'038'741'120},
  };
}

class Variant : public ::testing::TestWithParam<VariantRow> {};

INSTANTIATE_TEST_SUITE_P(GetModelConfig,
                         Variant,
                         ::testing::ValuesIn(variant_rows()),
                         [](const auto& row) {
                           auto name = row.param.name;
                           for (auto& c : name) {
                             if (c == '-') c = '_';
                           }
                           return name;
                         });

TEST_P(Variant, HasTheReferencesFields) {
  const auto& want = GetParam();
  const auto got = get_model_config(want.name, "float16");
  EXPECT_EQ(got.architecture, want.architecture);
  EXPECT_EQ(got.vocab_size, want.vocab_size);
  EXPECT_EQ(got.max_position_embeddings, want.max_position_embeddings);
  EXPECT_EQ(got.num_hidden_layers, want.num_hidden_layers);
  EXPECT_EQ(got.num_attention_heads, want.num_attention_heads);
  EXPECT_EQ(got.num_key_value_heads, want.num_key_value_heads);
  EXPECT_EQ(got.hidden_size, want.hidden_size);
  EXPECT_EQ(got.intermediate_size, want.intermediate_size);
  EXPECT_EQ(got.head_dim, want.head_dim);
  EXPECT_EQ(got.rms_norm_eps, 1e-6);
  EXPECT_EQ(got.dtype, "float16");
  EXPECT_FALSE(got.quant);
  EXPECT_EQ(got.tokenizer, want.tokenizer);
  EXPECT_EQ(got.attn_types, want.attn_types);
  EXPECT_EQ(got.sliding_window_size, want.sliding_window_size);
  EXPECT_EQ(got.final_logit_softcapping, want.final_logit_softcapping);
  EXPECT_EQ(got.attn_logit_softcapping, want.attn_logit_softcapping);
  EXPECT_EQ(got.query_pre_attn_scalar, want.query_pre_attn_scalar);
  EXPECT_EQ(got.use_pre_ffw_norm, want.ffw_norms);
  EXPECT_EQ(got.use_post_ffw_norm, want.ffw_norms);
  EXPECT_EQ(got.rope_wave_length, want.rope_wave_length);
  EXPECT_EQ(got.use_qk_norm, want.use_qk_norm);
  EXPECT_EQ(got.vision_config.has_value(), want.vision);
  EXPECT_EQ(got.rope_scaling_factor, want.rope_scaling_factor);
}

TEST_P(Variant, HasThePublishedNumberOfParameters) {
  const DefaultDtypeGuard guard(torch::kBFloat16);
  auto config = get_model_config(GetParam().name);
  config.tokenizer = std::nullopt;
  config.max_position_embeddings = 1;  // The rope tables alone would take memory.
  const GemmaForCausalLM model(config);
  int64_t count = 0;
  for (const auto& parameter : model->parameters()) count += parameter.numel();
  EXPECT_EQ(count, GetParam().parameters);
}

TEST_P(Variant, IsValid) { EXPECT_NO_THROW(validate(get_model_config(GetParam().name))); }

TEST(GetModelConfig, IsBfloat16UnlessToldOtherwise) {
  EXPECT_EQ(get_model_config("2b").dtype, "bfloat16");
  EXPECT_EQ(get_model_config("2b", "float").dtype, "float");
}

TEST(GetModelConfig, NamesTheVariantsWhenItDoesNotKnowOne) {
  const auto message = message_of<std::invalid_argument>([] { get_model_config("4b-it"); });
  EXPECT_TRUE(contains(message, "'4b-it'"));
  EXPECT_TRUE(contains(message,
                       "2b, 7b, 2b-v2, 9b, 27b, 270m, 1b, 4b, 12b, 27b_v3, "
                       "vaultgemma-1b"));
}

TEST(GetModelConfig, NamesTheDtypesWhenItDoesNotKnowOne) {
  const auto message = message_of<std::invalid_argument>([] { get_model_config("2b", "int8"); });
  EXPECT_TRUE(contains(message, "'int8'"));
  EXPECT_TRUE(contains(message, "float16, float, float32, bfloat16"));
}

TEST(ModelVariants, AreThoseOfTheTable) {
  std::vector<std::string> names;
  for (const auto& row : variant_rows()) names.push_back(row.name);
  EXPECT_EQ(model_variants(), names);
}

// siglip_vision/config.py.
TEST(SiglipVisionModelConfig, HasTheReferencesFields) {
  const SiglipVisionModelConfig config;
  EXPECT_EQ(config.num_hidden_layers, 27);
  EXPECT_EQ(config.embedding_dim, 1152);
  EXPECT_TRUE(config.embedding_use_bias);
  EXPECT_EQ(config.input_channels, 3);
  EXPECT_EQ(config.image_size, 896);
  EXPECT_EQ(config.conv2d_patch_size, 14);
  EXPECT_EQ(config.num_attention_heads, 16);
  EXPECT_EQ(config.head_dim, 72);
  EXPECT_EQ(config.num_key_value_heads, 16);
  EXPECT_EQ(config.num_query_groups, 16);
  EXPECT_TRUE(config.qkv_use_bias);
  EXPECT_TRUE(config.output_proj_use_bias);
  EXPECT_EQ(config.intermediate_size, 4304);
  EXPECT_EQ(config.layer_norm_eps, 1e-6);
  EXPECT_EQ(config.dtype, "bfloat16");
  EXPECT_FALSE(config.quant);
  EXPECT_EQ(config.encoding_sequence_length, 256);
}

TEST(GemmaConfig, IsThatOf7bByDefault) {
  EXPECT_EQ(GemmaConfig(), get_config_for_7b());
  EXPECT_NE(GemmaConfig(), get_config_for_2b());
}

TEST(GemmaConfig, RepeatsTheAttentionTypes) {
  const auto config = tiny_config(Architecture::kGemma3);
  EXPECT_EQ(config.attn_type(0), kLocal);
  EXPECT_EQ(config.attn_type(5), kGlobal);
  EXPECT_EQ(config.attn_type(6), kLocal);
  EXPECT_EQ(config.attn_type(11), kGlobal);
  EXPECT_EQ(tiny_config(Architecture::kGemma1).attn_type(0), kGlobal);
}

TEST(GemmaConfig, GivesItsDtypeOrNamesTheValidOnes) {
  GemmaConfig config;
  config.dtype = "float";
  EXPECT_EQ(config.get_dtype(), torch::kFloat);
  config.dtype = "fp16";
  const auto message = message_of<std::invalid_argument>([&] { config.get_dtype(); });
  EXPECT_TRUE(contains(message, "'fp16'"));
  EXPECT_TRUE(contains(message, "float16, float, float32, bfloat16"));
}

TEST(DtypeFromString, KnowsTheReferencesNames) {
  EXPECT_EQ(dtype_from_string("float16"), torch::kHalf);
  EXPECT_EQ(dtype_from_string("float"), torch::kFloat);
  EXPECT_EQ(dtype_from_string("float32"), torch::kFloat);
  EXPECT_EQ(dtype_from_string("bfloat16"), torch::kBFloat16);
  EXPECT_THROW(dtype_from_string(""), std::invalid_argument);
  EXPECT_THROW(dtype_from_string("Float"), std::invalid_argument);
}

TEST(DtypeToString, IsReadBack) {
  EXPECT_EQ(dtype_to_string(torch::kHalf), "float16");
  EXPECT_EQ(dtype_to_string(torch::kFloat), "float32");
  EXPECT_EQ(dtype_to_string(torch::kBFloat16), "bfloat16");
  EXPECT_THROW(dtype_to_string(torch::kChar), std::invalid_argument);
}

TEST(ToString, GivesTheReferencesNames) {
  EXPECT_EQ(to_string(kGlobal), "GLOBAL");
  EXPECT_EQ(to_string(kLocal), "LOCAL_SLIDING");
  EXPECT_EQ(to_string(Architecture::kGemma1), "GEMMA_1");
  EXPECT_EQ(to_string(Architecture::kGemma2), "GEMMA_2");
  EXPECT_EQ(to_string(Architecture::kGemma3), "GEMMA_3");
}

TEST(ToString, RefusesWhatIsNoEnumerator) {
  EXPECT_TRUE(
      contains(message_of<std::invalid_argument>([] { to_string(static_cast<AttentionType>(3)); }),
               "AttentionType 3 is unknown; valid: 1 (GLOBAL), 2 (LOCAL_SLIDING)"));
  EXPECT_TRUE(
      contains(message_of<std::invalid_argument>([] { to_string(static_cast<Architecture>(4)); }),
               "Architecture 4 is unknown"));
}

struct BadConfig {
  std::string name;
  std::function<void(GemmaConfig&)> spoil;
  std::string expected;
};

std::ostream& operator<<(std::ostream& out, const BadConfig& row) { return out << row.name; }

class Validate : public ::testing::TestWithParam<BadConfig> {};

TEST_P(Validate, RefusesNamingTheField) {
  auto config = tiny_config(Architecture::kGemma3);
  ASSERT_NO_THROW(validate(config));
  GetParam().spoil(config);
  EXPECT_TRUE(
      contains(message_of<std::invalid_argument>([&] { validate(config); }), GetParam().expected));
  // No model is built from it either.
  EXPECT_THROW(GemmaForCausalLM{config}, std::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(
    GemmaConfig,
    Validate,
    ::testing::Values(
        BadConfig{"NoVocabulary", [](auto& c) { c.vocab_size = 0; },
                  "vocab_size is 0, but must be at least 1"},
        BadConfig{"NoPositions", [](auto& c) { c.max_position_embeddings = 0; },
                  "max_position_embeddings is 0"},
        BadConfig{"NoLayers", [](auto& c) { c.num_hidden_layers = 0; }, "num_hidden_layers is 0"},
        BadConfig{"NoHeads", [](auto& c) { c.num_attention_heads = 0; },
                  "num_attention_heads is 0"},
        BadConfig{"NoKeyValueHeads", [](auto& c) { c.num_key_value_heads = 0; },
                  "num_key_value_heads is 0"},
        BadConfig{"NegativeHiddenSize", [](auto& c) { c.hidden_size = -1; }, "hidden_size is -1"},
        BadConfig{"NoIntermediateSize", [](auto& c) { c.intermediate_size = 0; },
                  "intermediate_size is 0"},
        BadConfig{"NoHeadDim", [](auto& c) { c.head_dim = 0; }, "head_dim is 0"},
        BadConfig{"OddHeadDim", [](auto& c) { c.head_dim = 25; },
                  "head_dim is 25, but rotary embedding needs an even one"},
        BadConfig{"HeadsThatDoNotDivide", [](auto& c) { c.num_key_value_heads = 2; },
                  "num_attention_heads (3) must be a multiple of num_key_value_heads (2)"},
        BadConfig{"WindowOfNothing", [](auto& c) { c.sliding_window_size = 0; },
                  "sliding_window_size is 0"},
        BadConfig{"EmptyAttnTypes", [](auto& c) { c.attn_types = std::vector<AttentionType>(); },
                  "attn_types is empty"},
        BadConfig{"ZeroQueryScalar", [](auto& c) { c.query_pre_attn_scalar = 0; },
                  "query_pre_attn_scalar is 0"},
        BadConfig{"ZeroRopeScaling", [](auto& c) { c.rope_scaling_factor = 0; },
                  "rope_scaling_factor is 0"},
        BadConfig{"Gemma3WithoutWaveLength", [](auto& c) { c.rope_wave_length = std::nullopt; },
                  "rope_wave_length must be given for GEMMA_3"},
        BadConfig{"UnknownDtype", [](auto& c) { c.dtype = "int4"; }, "dtype 'int4' is unknown"},
        BadConfig{"UnknownArchitecture",
                  [](auto& c) { c.architecture = static_cast<Architecture>(9); },
                  "Architecture 9 is unknown"}),
    [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace gemma
