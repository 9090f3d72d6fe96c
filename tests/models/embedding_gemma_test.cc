#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/models/embedding_gemma.h>

namespace gemma {
namespace {

using testing::message_of;
using testing::randomize;
using testing::tensors_close;
using testing::tensors_equal;

constexpr int64_t kVocabulary = 50;
constexpr int64_t kWindow = 3;

EmbeddingGemmaConfig tiny_config(int64_t layers = 2) {
  auto config = get_config_for_embedding_gemma_300m();
  config.text.vocab_size = kVocabulary;
  config.text.max_position_embeddings = 100;
  config.text.num_hidden_layers = layers;
  config.text.hidden_size = 20;
  config.text.intermediate_size = 28;
  config.text.head_dim = 8;
  config.text.attn_types = {AttentionType::kLocalSliding, AttentionType::kGlobal};
  config.text.sliding_window_size = kWindow;
  config.dense_features = {24, 12};
  return config;
}

EmbeddingGemma tiny_model(int64_t layers = 2) {
  EmbeddingGemma model(tiny_config(layers));
  randomize(*model, /*seed=*/1);
  return model;
}

std::vector<int64_t> random_ids(int64_t count) {
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back((17 * i * i + 5 * i + count) % kVocabulary);
  return ids;
}

TEST(EmbeddingGemma, HasThePublishedNumberOfParameters) {
  const EmbeddingGemma model(get_config_for_embedding_gemma_300m());
  int64_t text = 0, dense = 0;
  for (const auto& parameter : model->encoder->parameters()) text += parameter.numel();
  for (const auto& parameter : model->dense->parameters()) dense += parameter.numel();
  EXPECT_EQ(text, 302'863'104);
  EXPECT_EQ(dense, 4'718'592);
}

// With one local layer, what a token becomes depends on the window around it, and on nothing else.
TEST(EmbeddingGemma, ATokenOfALocalLayerSeesTheWindowOnBothSides) {
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    auto model = tiny_model(/*layers=*/1);
    model->set_numerics(numerics);
    const auto ids = random_ids(12);
    const std::vector<std::vector<int64_t>> text{ids};
    const auto before = model->encoder->forward(text);
    constexpr int64_t kChanged = 6;
    auto other = text;
    other[0][kChanged] = (ids[kChanged] + 1) % kVocabulary;
    const auto after = model->encoder->forward(other);
    for (int64_t i = 0; i < std::ssize(ids); ++i) {
      EXPECT_EQ(at::equal(before[i], after[i]), std::abs(i - kChanged) >= kWindow) << i;
    }
  }
}

TEST(EmbeddingGemma, ATokenOfAGlobalLayerSeesTheWholeText) {
  auto model = tiny_model();
  const std::vector<std::vector<int64_t>> text{random_ids(12)};
  auto other = text;
  other[0].back() = (other[0].back() + 1) % kVocabulary;
  const auto before = model->encoder->forward(text), after = model->encoder->forward(other);
  for (int64_t i = 0; i < 12; ++i) EXPECT_FALSE(at::equal(before[i], after[i])) << i;
}

TEST(EmbeddingGemma, IsTheMeanThroughTheLinearLayersAtLengthOne) {
  auto model = tiny_model();
  const std::vector<std::vector<int64_t>> text{random_ids(9)};
  auto x = model->encoder->forward(text).mean(/*dim=*/0, /*keepdim=*/true);
  for (size_t i = 0; i < 2; ++i) {
    x = at::linear(x, model->dense->at<DenseImpl>(i).linear->weight);
  }
  EXPECT_TRUE(tensors_close(model->forward(text), x / x.norm()));
}

TEST(EmbeddingGemma, ATextHasTheSameBitsAloneAndBesideOthers) {
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    auto model = tiny_model();
    model->set_numerics(numerics);
    std::vector<std::vector<int64_t>> texts;
    for (const int64_t tokens : {1, 100, 2, 64, 65, 31, 7}) {
      for (int i = 0; i < 9; ++i) texts.push_back(random_ids(tokens));
    }
    const auto together = model->forward(texts);
    for (size_t i = 0; i < texts.size(); ++i) {
      EXPECT_TRUE(tensors_equal(together[static_cast<int64_t>(i)], model->forward({texts[i]})[0]));
    }
  }
}

TEST(EmbeddingGemma, FastNumericsFollowExactOnes) {
  auto model = tiny_model();
  const std::vector<std::vector<int64_t>> texts{random_ids(1), random_ids(99), random_ids(10)};
  const auto exact = model->forward(texts);
  model->set_numerics(Numerics::kFast);
  EXPECT_TRUE(at::allclose(model->forward(texts), exact, /*rtol=*/0, /*atol=*/1e-5));
}

TEST(EmbeddingGemmaConfig, ThatMakesNoModelIsRefused) {
  const auto refused = [](const auto& change) {
    auto config = tiny_config();
    change(config);
    return message_of<std::invalid_argument>([&] { validate(config); });
  };
  EXPECT_EQ(refused([](auto& config) { config.text.architecture = Architecture::kGemma1; }),
            "EmbeddingGemmaConfig: text.architecture is GEMMA_1, but must be GEMMA_3");
  EXPECT_EQ(refused([](auto& config) { config.text.quant = true; }),
            "EmbeddingGemmaConfig: text.quant is true, but must be false");
  EXPECT_EQ(refused([](auto& config) { config.dense_features = {8, 0}; }),
            "EmbeddingGemmaConfig: dense_features holds 0, but each must be at least 1");
  EXPECT_EQ(refused([](auto& config) { config.default_prompt_name = "query"; }),
            "EmbeddingGemmaConfig: default_prompt_name is 'query', which is none of the prompts");
}

}  // namespace
}  // namespace gemma
