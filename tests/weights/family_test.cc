#include <optional>
#include <stdexcept>
#include <string>

#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/saved_models.h"
#include "tests/testing.h"

#include <gemma/checkpoint/gguf_writer.h>
#include <gemma/models/griffin.h>
#include <gemma/weights/checkpoint_config.h>
#include <gemma/weights/family.h>
#include <gemma/weights/griffin_checkpoint.h>

namespace gemma {
namespace {

using testing::contains;
using testing::expect_message;
using testing::message_of;
using testing::saved;

constexpr auto kEmbedding = "embedder.weight";
constexpr auto kGriffinEmbedding = "embedder.input_embedding";
constexpr auto kProjector = "multi_modal_projector.linear.weight";

class FamilyOfFiles : public ::testing::Test {
 protected:
  WeightSource with(const std::string& tensor) const {
    return WeightSource::open(folder_.write("model.ckpt", saved({{tensor, at::ones({2, 2})}})));
  }

  // A directory with this config.json and a tensor of this name.
  WeightSource directory_with(const std::string& json, const std::string& tensor) const {
    folder_.write("config.json", json);
    folder_.write("pytorch_model.bin", saved({{tensor, at::ones({2, 2})}}, /*bare=*/true));
    return WeightSource::open(folder_.path());
  }

  WeightSource gguf_of(const std::string& architecture) const {
    const auto path = folder_.path() / "model.gguf";
    GgufWriter writer(path, {{"general.architecture", architecture}},
                      {{.name = "token_embd.weight", .sizes = {2, 2}, .dtype = at::kFloat}},
                      /*overwrite=*/true);
    writer.add("token_embd.weight", at::ones({2, 2}));
    writer.finish();
    return WeightSource::open(path);
  }

  const testing::TemporaryDirectory folder_;
};

TEST_F(FamilyOfFiles, IsToldByTensorsThatOnlyOneHas) {
  EXPECT_EQ(family_of(with(kEmbedding)), Family::kGemma);
  EXPECT_EQ(family_of(with("text_token_embedder.weight")), Family::kGemma);
  EXPECT_EQ(family_of(with(kGriffinEmbedding)), Family::kRecurrentGemma);
  EXPECT_EQ(family_of(with(kProjector)), Family::kPaliGemma);
  EXPECT_EQ(family_of(with("x")), std::nullopt);
}

TEST_F(FamilyOfFiles, IsToldByConfigJson) {
  for (const auto& [json, family] :
       {std::pair{R"({"model_type":"recurrent_gemma"})", Family::kRecurrentGemma},
        {R"({"model_type":"paligemma"})", Family::kPaliGemma},
        {R"({"model_type":"gemma2"})", Family::kGemma},
        {R"({"model_type":"gemma3_text","use_bidirectional_attention":false})", Family::kGemma},
        {R"({"model_type":"gemma3_text","use_bidirectional_attention":true})",
         Family::kEmbeddingGemma}}) {
    EXPECT_EQ(family_of(directory_with(json, "x")), family) << json;
  }
  EXPECT_EQ(family_of(directory_with(R"({"model_type":"llama"})", "x")), std::nullopt);
  EXPECT_EQ(family_of(directory_with("{}", kEmbedding)), Family::kGemma);
  // What the tensors say counts more.
  EXPECT_EQ(family_of(directory_with(R"({"model_type":"gemma"})", kProjector)), Family::kPaliGemma);
  const auto source = directory_with("[]", "x");
  EXPECT_TRUE(contains(message_of<std::runtime_error>([&] { family_of(source); }), "config.json"));
}

TEST_F(FamilyOfFiles, IsToldByTheArchitectureOfGguf) {
  EXPECT_EQ(family_of(gguf_of("gemma2")), Family::kGemma);
  EXPECT_EQ(family_of(gguf_of("gemma-embedding")), Family::kEmbeddingGemma);
  EXPECT_EQ(family_of(gguf_of("llama")), std::nullopt);
  EXPECT_EQ(family_of(gguf_of("")), std::nullopt);
}

TEST_F(FamilyOfFiles, IsNamedByWhatTakesAnotherOne) {
  const auto path = (folder_.path() / "model.ckpt").string();
  const auto source = with(kGriffinEmbedding);
  expect_message(
      message_of<std::runtime_error>([&] { config_of(source); }), path + ": ",
      "holds RecurrentGemma, which is for `gemma run` and gemma_libtorch.recurrentgemma; "
      "GemmaConfig takes Gemma");
  auto model = testing::random_gemma3(/*seed=*/1);
  const testing::Unchanged unchanged(*model);
  expect_message(message_of<std::runtime_error>([&] { model->load_weights(source); }), path + ": ",
                 "GemmaForCausalLM takes Gemma");
  const auto gemma = with(kEmbedding);
  expect_message(message_of<std::runtime_error>([&] { recurrentgemma::griffin_config_of(gemma); }),
                 path + ": ", "holds Gemma, which is for `gemma run` and gemma_libtorch.model");
}

}  // namespace
}  // namespace gemma
