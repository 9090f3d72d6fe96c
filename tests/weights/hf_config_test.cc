#include <exception>
#include <fstream>
#include <ostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/testing.h"

#include <gemma/errors.h>
#include <gemma/weights/hf/hf_config.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::TemporaryDirectory;

constexpr auto kLocal = AttentionType::kLocalSliding;
constexpr auto kGlobal = AttentionType::kGlobal;

GemmaConfig read(const std::string& json) { return config_from_hf(json, "config.json"); }

// What the published files of the families leave away or say in their own way.
TEST(HfConfig, AbsentFieldsHaveTheFamilysDefaults) {
  const auto gemma1 = read(R"({"model_type":"gemma","hidden_act":"gelu"})");
  EXPECT_EQ(gemma1.num_key_value_heads, 16);
  EXPECT_EQ(gemma1.dtype, "float32");
  EXPECT_EQ(read(R"({"model_type":"gemma","torch_dtype":"float64"})").dtype, "float32");
  EXPECT_FALSE(gemma1.attn_types);
  const auto gemma2 = read(R"({"model_type":"gemma2"})");
  EXPECT_EQ(gemma2.final_logit_softcapping, 30.0);
  EXPECT_EQ(gemma2.num_key_value_heads, 4);
  EXPECT_FALSE(
      read(R"({"model_type":"gemma2","attn_logit_softcapping":null})").attn_logit_softcapping);
}

// gemma-3-4b's file, of the first release: heads, head_dim, vocabulary and length are not in it.
TEST(HfConfig, TheFirstReleasesMultimodalFileIsThe4b) {
  auto config = read(R"({"model_type":"gemma3","torch_dtype":"bfloat16","mm_tokens_per_image":256,
      "eos_token_id":[1,106],"image_token_index":262144,
      "text_config":{"hidden_size":2560,"intermediate_size":10240,"model_type":"gemma3_text",
        "num_hidden_layers":34,"rope_scaling":{"factor":8.0,"rope_type":"linear"},
        "sliding_window":1024},
      "vision_config":{"hidden_size":1152,"image_size":896,"intermediate_size":4304,
        "model_type":"siglip_vision_model","num_attention_heads":16,"num_hidden_layers":27,
        "patch_size":14,"vision_use_head":false}})");
  auto want = get_config_for_4b("bfloat16");
  EXPECT_EQ(config.max_position_embeddings, 131072);
  want.max_position_embeddings = config.max_position_embeddings;  // The reference says 8192.
  want.tokenizer = std::nullopt;
  EXPECT_EQ(config, want);
}

TEST(HfConfig, OldAndNewRotaryFieldsAreTheSame) {
  const auto base = std::string(R"({"model_type":"gemma3_text","num_hidden_layers":2,)");
  const auto old = read(base + R"("rope_theta":77000.0,"rope_local_base_freq":5000})");
  const auto now = read(base + R"("rope_parameters":{
             "full_attention":{"rope_type":"default","rope_theta":77000.0},
             "sliding_attention":{"rope_type":"default","rope_theta":5000.0}}})");
  EXPECT_EQ(old, now);
  EXPECT_EQ(old.rope_wave_length->at(kLocal), 5000);
  EXPECT_EQ(old.rope_wave_length->at(kGlobal), 77000);
}

// Of configs that transformers and others write.
TEST(HfConfig, FieldsThatChangeNothingAreLeft) {
  const auto plain = read(R"({"model_type":"gemma3_text"})");
  const auto full = read(R"({"model_type":"gemma3_text","attention_dropout":0.1,"mlp_bias":false,
      "num_experts":0,"partial_rotary_factor":1.0,"embedding_multiplier":1,"expert_list":[],
      "attn_implementation":"eager","_attn_implementation_autoset":true,"output_attentions":false,
      "hidden_activation":"gelu_new","hidden_act":"gelu","layer_types":null,"moe_kind":"",
      "rope_parameters":{"full_attention":{"rope_type":"default","partial_rotary_factor":1.0,
      "original_max_position_embeddings":8192}},"unsloth_version":"2025.3"})");
  EXPECT_EQ(full, plain);
}

TEST(HfConfig, RowsOfThePublishedEmbeddingWithoutATokenAreNotCounted) {
  EXPECT_EQ(read(R"({"model_type":"gemma3_text","vocab_size":262208})").vocab_size, 262144);
  EXPECT_EQ(read(R"({"model_type":"gemma3_text","vocab_size":262209})").vocab_size, 262209);
}

TEST(HfConfig, RowsOfTokensAddedBesideTheTokenizerAreCounted) {
  const TemporaryDirectory directory;
  std::ofstream(directory.path() / "added_tokens.json") << R"({"<a>":262144,"<b>":262145})";
  constexpr auto kJson = R"({"model_type":"gemma3_text","vocab_size":262208})";
  const auto tokenizer = directory.path() / "tokenizer.model";
  EXPECT_EQ(config_from_hf(kJson, "config.json", tokenizer).vocab_size, 262146);
}

TEST(HfConfig, LayerTypesAreAListOrAPattern) {
  const auto types = [](const std::string& fields) {
    return *read(R"({"model_type":"gemma3_text","num_hidden_layers":4,)" + fields + "}").attn_types;
  };
  using Types = std::vector<AttentionType>;
  EXPECT_EQ(types(R"("sliding_window_pattern":2)"), (Types{kLocal, kGlobal}));
  EXPECT_EQ(types(R"("layer_types":["full_attention","full_attention","sliding_attention",
                     "sliding_attention"])"),
            (Types{kGlobal, kGlobal, kLocal, kLocal}));
  EXPECT_EQ(types(R"("sliding_window":512)").size(), 6U);
}

TEST(HfConfig, ComesFromADirectory) {
  const TemporaryDirectory directory;
  EXPECT_FALSE(has_hf_config(directory.path()));
  EXPECT_THROW(read_hf_config(directory.path()), FileNotFound);
  directory.write("config.json", R"({"model_type":"gemma"})");
  EXPECT_TRUE(has_hf_config(directory.path()));
  EXPECT_EQ(read_hf_config(directory.path()).architecture, Architecture::kGemma1);
}

struct BadConfig {
  std::string name, json, expected;
};

std::ostream& operator<<(std::ostream& out, const BadConfig& row) { return out << row.name; }

std::string gemma1_with(const std::string& fields) {
  return R"({"model_type":"gemma",)" + fields + "}";
}

std::string gemma3_with(const std::string& fields) {
  return R"({"model_type":"gemma3_text","num_hidden_layers":2,)" + fields + "}";
}

class BadHfConfig : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadHfConfig, IsRefusedInOneLineThatNamesFileAndField) {
  const auto message = message_of<std::exception>([&] { read(GetParam().json); });
  EXPECT_TRUE(message.starts_with("config.json: ")) << message;
  EXPECT_EQ(message.find_first_of("\n\x1b"), std::string::npos) << message;
  EXPECT_TRUE(contains(message, GetParam().expected)) << message;
}

INSTANTIATE_TEST_SUITE_P(
    Table,
    BadHfConfig,
    ::testing::Values(
        BadConfig{"Empty", "", "it is not JSON (at byte"},
        BadConfig{"NotJson", "{,}", "it is not JSON (at byte"},
        BadConfig{"NotUtf8", "{\"\xff\":1}", "it is not JSON"},
        BadConfig{"Array", "[]", "it is not an object of fields"},
        BadConfig{"Deep", std::string(100'000, '['), "it is nested more than 32 deep"},
        BadConfig{"Long", std::string((1 << 20) + 1, ' '), "more than 1048576"},
        BadConfig{"NoType", "{}", "'model_type' is not there; valid: gemma, gemma2"},
        BadConfig{"AnotherType", R"({"model_type":"llama\n"})", R"('model_type' is "llama\x0a")"},
        BadConfig{"TypeIsANumber", R"({"model_type":1})", "'model_type' is 1, not a string"},
        BadConfig{"Text", gemma1_with(R"("hidden_size":"x")"), R"('hidden_size' is "x", not a)"},
        BadConfig{"Negative", gemma1_with(R"("hidden_size":-1)"), "is -1, not a number above 0"},
        BadConfig{"Zero", gemma1_with(R"("head_dim":0)"), "is 0, not a number above 0"},
        BadConfig{"Fraction", gemma1_with(R"("head_dim":2.5)"), "is 2.5, not a whole number"},
        BadConfig{"Huge", gemma1_with(R"("vocab_size":1e300)"), "not a whole number up to 2^40"},
        BadConfig{"Infinite", gemma1_with(R"("hidden_size":1e999)"), "a number that is too large"},
        BadConfig{"OddHead", gemma1_with(R"("head_dim":3)"), "needs an even one"},
        BadConfig{"Heads", gemma1_with(R"("num_key_value_heads":5)"), "must be a multiple of"},
        BadConfig{"ManyLayers", gemma1_with(R"("num_hidden_layers":1000000000)"), "is over 10000"},
        BadConfig{"Theta", gemma1_with(R"("rope_theta":5000)"), "but Gemma 1 and 2 have 10000"},
        BadConfig{"Activation", gemma1_with(R"("hidden_act":"silu")"), "but Gemma has gelu"},
        BadConfig{"ExactGelu", gemma1_with(R"("hidden_activation":"gelu")"),
                  "'hidden_activation' is \"gelu\", but Gemma has gelu_pytorch_tanh"},
        BadConfig{"VisionGelu", R"({"model_type":"gemma3","vision_config":{"hidden_act":"gelu"}})",
                  "'vision_config.hidden_act' is \"gelu\""},
        BadConfig{"MlpBias", gemma1_with(R"("mlp_bias":true)"), "'mlp_bias' is true"},
        BadConfig{"Experts", gemma3_with(R"("num_local_experts":8)"), "'num_local_experts' is 8"},
        BadConfig{"SharedLayers", gemma3_with(R"("num_kv_shared_layers":1)"), "is 1, which no"},
        BadConfig{"Multiplier", gemma3_with(R"("residual_multiplier":0.5)"), "is 0.5, which no"},
        BadConfig{"SlidingGemma1", gemma1_with(R"("sliding_window":4)"), "'sliding_window' is 4"},
        BadConfig{"PartialRotation", gemma3_with(R"("partial_rotary_factor":0.5)"), "is 0.5"},
        BadConfig{
            "PartialRotationInside",
            gemma3_with(R"("rope_parameters":{"full_attention":{"partial_rotary_factor":0.5}})"),
            "'rope_parameters.full_attention.partial_rotary_factor' is 0.5"},
        BadConfig{"ThirdRope",
                  gemma3_with(R"("rope_parameters":{"full_attention":{},"x":{"a":1}})"),
                  "'rope_parameters.x' is"},
        BadConfig{"Mrope", gemma3_with(R"("rope_scaling":{"mrope_section":[16,24,24]})"),
                  "'rope_scaling.mrope_section' is [16,24,24]"},
        BadConfig{"InsideText", R"({"model_type":"gemma3","text_config":{"num_experts":2}})",
                  "'text_config.num_experts' is 2"},
        BadConfig{"Bias", gemma1_with(R"("attention_bias":true)"), "'attention_bias' is true"},
        BadConfig{"Quantised", gemma1_with(R"("quantization_config":{})"), "take the model in"},
        BadConfig{"Dtype", gemma1_with(R"("torch_dtype":"int8")"), "'torch_dtype' is \"int8\""},
        BadConfig{"Embeds", gemma3_with(R"("use_bidirectional_attention":true)"), "EmbeddingGemma"},
        BadConfig{"VaultWindow", R"({"model_type":"vaultgemma","num_hidden_layers":2})",
                  "'layer_types' is not full_attention of all layers"},
        BadConfig{"Rope", gemma3_with(R"("rope_scaling":{"rope_type":"yarn"})"),
                  "'rope_scaling.rope_type' is \"yarn\""},
        BadConfig{"Scaled", gemma3_with(R"("rope_scaling":{"rope_type":"linear","factor":1.5})"),
                  "'factor' of the rotary embedding is 1.5, not a whole number"},
        BadConfig{"FewTypes", gemma3_with(R"("layer_types":["full_attention"])"),
                  "'layer_types' is not a list of 2 types"},
        BadConfig{"WrongTypes", gemma3_with(R"("layer_types":["full_attention",1])"), "holds 1"},
        BadConfig{"Pattern", gemma3_with(R"("sliding_window_pattern":1e12)"), "more than 10000"},
        BadConfig{"Vision", R"({"model_type":"gemma3","vision_config":3})", "not an object"}),
    [](const auto& row) { return row.param.name; });

TEST(HfConfig, AVaultGemmaIsAGemma1) {
  const std::string layers = R"("num_hidden_layers":1,"layer_types":["full_attention"])";
  const auto defaults = read(R"({"model_type":"vaultgemma",)" + layers + "}");
  EXPECT_EQ(defaults.architecture, Architecture::kGemma1);
  EXPECT_EQ(defaults.attn_logit_softcapping, 50.0);
  EXPECT_EQ(defaults.final_logit_softcapping, 30.0);
  EXPECT_FALSE(defaults.query_pre_attn_scalar);  // 256, the head's size.
  EXPECT_FALSE(defaults.attn_types);
  EXPECT_FALSE(defaults.sliding_window_size);
  EXPECT_FALSE(defaults.use_pre_ffw_norm);
  EXPECT_FALSE(defaults.use_post_ffw_norm);
  const auto published = read(R"({"model_type":"vaultgemma","attn_logit_softcapping":null,)"
                              R"("final_logit_softcapping":null,"vocab_size":256000,)"
                              R"("max_position_embeddings":1024,"hidden_size":1152,)"
                              R"("intermediate_size":6912,"num_attention_heads":4,)"
                              R"("num_key_value_heads":4,"query_pre_attn_scalar":256,)" +
                              layers + "}");
  auto want = get_model_config("vaultgemma-1b", "float32");
  want.num_hidden_layers = 1;
  want.tokenizer = std::nullopt;
  EXPECT_EQ(published, want);
}

TEST(HfConfig, OfAModelThatEmbedsTextTheWindowCountsOneSide) {
  const TemporaryDirectory directory;
  const auto write = [&](const std::string& more) {
    directory.write("config.json", gemma3_with(R"("sliding_window":512)" + more));
  };
  write(R"(,"use_bidirectional_attention":true)");
  EXPECT_EQ(read_hf_encoder_config(directory.path()).sliding_window_size, 257);
  write("");
  EXPECT_TRUE(
      contains(message_of<std::exception>([&] { read_hf_encoder_config(directory.path()); }),
               "is that of Gemma, which is for"));
}

TEST(HfConfig, WhatTransformersDoesNotHaveIsNotWritten) {
  auto config = get_config_for_2b();
  config.quant = true;
  EXPECT_TRUE(contains(message_of<std::exception>([&] { config_to_hf(config); }),
                       "GemmaConfig.quant is set"));
  config = get_config_for_2b_v2();
  config.use_post_ffw_norm = false;
  EXPECT_TRUE(contains(message_of<std::exception>([&] { config_to_hf(config); }),
                       "GemmaConfig.use_post_ffw_norm"));
}

}  // namespace
}  // namespace gemma
