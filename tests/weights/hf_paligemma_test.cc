#include <stdexcept>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/testing.h"

#include <gemma/weights/hf/hf_paligemma.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;

PaliGemmaConfig read(const std::string& json) { return paligemma_from_hf(json, "config.json"); }

std::string json_of(const std::string& text, const std::string& vision, const std::string& rest) {
  return fmt::format(
      R"({{"model_type":"paligemma","text_config":{{{}}},"vision_config":{{{}}}{}}})", text, vision,
      rest);
}

// As the published files have it.
constexpr auto kText = R"("model_type":"gemma","hidden_size":2048,"intermediate_size":16384,
    "num_attention_heads":8,"num_hidden_layers":18,"num_image_tokens":256,
    "num_key_value_heads":1,"vocab_size":257216)";
constexpr auto kVision = R"("hidden_size":1152,"intermediate_size":4304,
    "model_type":"siglip_vision_model","num_attention_heads":16,"num_hidden_layers":27,
    "num_image_tokens":256,"patch_size":14,"projection_dim":2048,
    "projector_hidden_act":"gelu_fast","vision_use_head":false)";
constexpr auto kRest = R"(,"image_token_index":257152,"projection_dim":2048,"hidden_size":2048,
    "torch_dtype":"bfloat16")";

TEST(HfPaliGemma, ReadsAPublishedConfig) {
  EXPECT_EQ(read(json_of(kText, kVision, kRest)), get_paligemma_config("paligemma-3b-224"));
  const auto large = fmt::format("{},{}", kVision, R"("image_size":896)");
  EXPECT_EQ(read(json_of(kText, large, kRest)), get_paligemma_config("paligemma-3b-896"));
}

// transformers 5 writes the fields that its class has.
TEST(HfPaliGemma, ReadsAConfigOfANewRelease) {
  const auto text = fmt::format("{},{}", kText,
                                R"("use_bidirectional_attention":true,"head_dim":256,
      "rope_parameters":{"rope_theta":10000.0,"rope_type":"default"})");
  const auto rest = R"(,"image_token_id":257152,"dtype":"bfloat16")";
  EXPECT_EQ(read(json_of(text, kVision, rest)), get_paligemma_config("paligemma-3b-224"));
}

TEST(HfPaliGemma, TakesWhatIsNotThereFromTransformers) {
  const auto config = read(json_of(R"("model_type":"gemma2")", "", ""));
  EXPECT_EQ(config.text_config.architecture, Architecture::kGemma2);
  EXPECT_EQ(config.text_config.hidden_size, 2304);
  EXPECT_EQ(config.projection_dim, 2304);
  EXPECT_EQ(config.image_token_id, 256'000);
  EXPECT_EQ(config.vision_config.image_size, 224);
  EXPECT_EQ(config.vision_config.conv2d_patch_size, 16);
  EXPECT_EQ(config.vision_config.embedding_dim, 768);
  EXPECT_EQ(config.vision_config.head_dim, 64);
  EXPECT_EQ(config.image_seq_length(), 196);
  EXPECT_EQ(config.text_config.dtype, "float32");
}

TEST(HfPaliGemma, CountsTheRowsThatStandForTokens) {
  const testing::TemporaryDirectory folder;
  folder.write("added_tokens.json", R"({"<loc0000>":256000,"<image>":257152})");
  const auto config = paligemma_from_hf(json_of(kText, kVision, kRest), "x", folder.path());
  EXPECT_EQ(config.text_config.vocab_size, 257'153);
}

TEST(HfPaliGemma, RefusesWhatIsNone) {
  const auto refusal = [](const std::string& json) {
    const auto message = message_of<std::runtime_error>([&] { read(json); });
    EXPECT_TRUE(message.starts_with("config.json: ")) << message;
    return message;
  };
  EXPECT_TRUE(contains(refusal(R"({"model_type":"gemma"})"), "'model_type' is not \"paligemma\""));
  EXPECT_TRUE(contains(refusal(R"({"model_type":"paligemma"})"), "'text_config' is not there"));
  EXPECT_TRUE(contains(refusal(json_of(R"("model_type":"gemma3_text")", "", "")),
                       "'text_config.model_type' is \"gemma3_text\"; valid: gemma, gemma2"));
  EXPECT_TRUE(
      contains(refusal(json_of(R"("num_experts":8)", "", "")), "'text_config.num_experts'"));
  EXPECT_TRUE(contains(refusal(json_of("", R"("patch_size":15)", "")), "must be a multiple of"));
  EXPECT_TRUE(contains(refusal(json_of("", "", R"(,"projection_dim":5)")), "projection_dim (5)"));
}

}  // namespace
}  // namespace gemma
