#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>

#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/saved_models.h"
#include "tests/testing.h"

#include <gemma/checkpoint/torch_writer.h>
#include <gemma/weights/checkpoint_config.h>
#include <gemma/weights/hf/hf_config.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::random_gemma3;

// A config that no variant has, as config.json gives it back.
GemmaConfig unusual() {
  auto config = testing::tiny_config(Architecture::kGemma3);
  config.rope_scaling_factor = 8;
  config.max_position_embeddings = 77;
  return config_from_hf(config_to_hf(config), "x");
}

class CheckpointConfig : public ::testing::Test {
 protected:
  // The tiny Gemma 3 in a .ckpt with this text in it, none if it is empty.
  WeightSource source_with(const std::string& json, bool quant = false) const {
    TorchWriter writer(path_, /*overwrite=*/true);
    if (!json.empty()) writer.set_config(json);
    for (const auto& [name, tensor] : weights_of(*random_gemma3(/*seed=*/1, quant))) {
      writer.add(name, tensor);
    }
    writer.finish();
    return WeightSource::open(path_);
  }

  const testing::TemporaryDirectory folder_;
  const std::filesystem::path path_ = folder_.path() / "model.ckpt";
};

TEST_F(CheckpointConfig, ComesFromTheTextInAFile) {
  for (const bool quant : {false, true}) {
    auto want = unusual();
    want.quant = quant;
    auto config = config_of(source_with(config_to_hf(unusual()), quant));
    ASSERT_TRUE(config);
    EXPECT_EQ(*config, want);
    EXPECT_EQ(config_from_pretrained(path_), want);
  }
}

TEST_F(CheckpointConfig, HasTheDtypeOfTheWeights) {
  auto stated = unusual();
  stated.dtype = "bfloat16";
  EXPECT_EQ(config_of(source_with(config_to_hf(stated)))->dtype, "float32");
  for (const auto& [dtype, want] : {std::pair{at::kDouble, "float32"}, {at::kHalf, "float16"}}) {
    save_weights(path_, {{"embedder.weight", at::ones({2, 2}, dtype)}}, /*overwrite=*/true);
    EXPECT_EQ(config_of(WeightSource::open(path_), "1b")->dtype, want);
  }
}

TEST_F(CheckpointConfig, IsNoneWhereNothingSaysIt) {
  EXPECT_FALSE(config_of(source_with("")));
  const auto message = message_of<std::runtime_error>([&] { config_from_pretrained(path_); });
  EXPECT_TRUE(message.starts_with(path_.string() + ": says nowhere")) << message;
}

TEST_F(CheckpointConfig, IsThatOfTheVariantWhichIsNamed) {
  const auto source = source_with(config_to_hf(unusual()), /*quant=*/true);
  auto want = get_model_config("1b", "float32");
  want.quant = true;
  want.tokenizer = std::nullopt;
  EXPECT_EQ(config_of(source, "1b"), want);
  EXPECT_THROW(config_of(source, "1c"), std::invalid_argument);
}

TEST_F(CheckpointConfig, RefusesADamagedTextAndNamesTheFile) {
  for (const auto* text : {"{", "null", R"({"model_type":"llama"})"}) {
    const auto source = source_with(text);
    const auto message = message_of<std::runtime_error>([&] { config_of(source); });
    EXPECT_TRUE(message.starts_with("config.json in " + path_.string() + ": ")) << message;
    EXPECT_FALSE(contains(message, "\n"));
  }
}

TEST_F(CheckpointConfig, OfADirectoryNeedsNoWeights) {
  folder_.write("config.json", config_to_hf(unusual()));
  EXPECT_EQ(config_from_pretrained(folder_.path()), unusual());
  auto want = unusual();
  want.tokenizer = folder_.write("tokenizer.model", "x").string();
  EXPECT_EQ(config_from_pretrained(folder_.path()), want);
}

TEST_F(CheckpointConfig, FindsTheTokenizerBesideTheWeights) {
  const auto source = source_with(config_to_hf(unusual()));
  EXPECT_EQ(tokenizer_of(source), std::nullopt);
  const auto tokenizer = folder_.write("tokenizer.model", "x").string();
  EXPECT_EQ(tokenizer_of(source), tokenizer);
  EXPECT_EQ(config_of(source)->tokenizer, tokenizer);
}

}  // namespace
}  // namespace gemma
