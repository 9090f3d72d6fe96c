#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/engine/model_runner.h>
#include <gemma/generate/make_model.h>
#include <gemma/generate/multimodal_lm.h>
#include <gemma/modules/masks.h>
#include <gemma/ops/rotary.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::near_to;
using testing::random_tensor;
using testing::randomize;
using testing::tensors_equal;
using testing::tiny_config;

constexpr int64_t kTokens = 4;  // Of an image.

// Pictures of 16 x 16 pixels; layers with a window shorter than an image, and one without.
GemmaConfig multimodal_config() {
  auto config = tiny_config(Architecture::kGemma3);
  config.sliding_window_size = 3;
  config.rope_scaling_factor = 8;
  config.vision_config = SiglipVisionModelConfig{.num_hidden_layers = 2,
                                                 .embedding_dim = 12,
                                                 .image_size = 16,
                                                 .conv2d_patch_size = 2,
                                                 .num_attention_heads = 2,
                                                 .head_dim = 6,
                                                 .intermediate_size = 17,
                                                 .encoding_sequence_length = kTokens};
  return config;
}

class MultimodalTest : public ::testing::Test {
 protected:
  MultimodalTest() { randomize(*model_, /*seed=*/1); }

  // What the layers make of all tokens together, with masks as wide as the text.
  at::Tensor dense() {
    const auto length = std::ssize(ids_);
    auto embeddings = model_->embed(at::tensor(ids_, at::kLong)).unsqueeze(0);
    auto is_image = at::zeros({1, length}, at::kBool);
    for (const auto& image : images_) {
      embeddings[0].narrow(0, image.first, kTokens).copy_(image.embeddings);
      is_image[0].narrow(0, image.first, kTokens).fill_(true);
    }
    // Two images that touch are two.
    auto blocks = image_blocks(is_image);
    blocks[0].narrow(0, images_[2].first, kTokens).add_(100);
    const auto positions = at::arange(length);
    const auto mask = [&](std::optional<int64_t> window) {
      return at::zeros({1, 1, length, length})
          .masked_fill_(visible_keys(positions, blocks, window).logical_not(),
                        -std::numeric_limits<float>::infinity());
    };
    return model_->hidden_states(embeddings, positions,
                                 model_->make_kv_caches(1, length, torch::kCPU), mask(std::nullopt),
                                 mask(3))[0];
  }

  Gemma3ForMultimodalLM model_{multimodal_config()};
  std::vector<int64_t> ids_{2, 7, 0, 0, 0, 0, 9, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 6, 5, 4, 3, 9, 9};
  std::vector<ImageTokens> images_{{2, random_tensor({kTokens, 33}, 2)},
                                   {9, random_tensor({kTokens, 33}, 3)},
                                   {13, random_tensor({kTokens, 33}, 4)}};
};

TEST_F(MultimodalTest, ARunnerSeesImagesAsMasksShowThem) {
  const auto want = dense();
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    model_->set_numerics(numerics);
    for (const int64_t chunk : {4, 5, 7, 9, 512}) {
      SCOPED_TRACE(std::string(to_string(numerics)) + ", chunks of " + std::to_string(chunk));
      ModelRunner runner(model_, {.chunk = chunk});
      auto sequence = runner.make_sequence();
      EXPECT_TRUE(near_to(runner.extend(sequence, ids_, images_), want, 1e-5));
      EXPECT_EQ(sequence.length(), std::ssize(ids_));
    }
  }
}

TEST_F(MultimodalTest, ImagesStayInTheCachesOfASequence) {
  model_->set_numerics(Numerics::kFast);
  const auto want = dense();
  ModelRunner runner(model_, {.max_batch = 2});
  auto with_images = runner.make_sequence();
  auto text = runner.make_sequence();
  const std::span ids(ids_);
  const std::vector<ModelRunner::Feed> feeds{{&text, ids.first(2)},
                                             {&with_images, ids.first(18), images_}};
  const auto last = runner.prompt(feeds);
  EXPECT_TRUE(near_to(last[0], want[1], 1e-5));
  EXPECT_TRUE(near_to(last[1], want[17], 1e-5));
  for (size_t i = 18; i < ids.size(); ++i) {
    const ModelRunner::Next next{&with_images, ids[i]};
    EXPECT_TRUE(near_to(runner.decode({&next, 1})[0], want[static_cast<int64_t>(i)], 1e-5));
  }
}

TEST_F(MultimodalTest, ARunnerRefusesImagesThatCannotBe) {
  ModelRunner runner(model_, {.chunk = 4});
  auto sequence = runner.make_sequence();
  const auto refusal = [&](std::vector<ImageTokens> images) {
    return message_of<std::invalid_argument>([&] { runner.extend(sequence, ids_, images); });
  };
  const auto image = [](int64_t first, int64_t tokens, int64_t width) {
    return ImageTokens{first, at::zeros({tokens, width})};
  };
  EXPECT_TRUE(contains(refusal({image(0, 5, 33)}), "is [5, 33], but must be [1 to 4, 33]"));
  EXPECT_TRUE(contains(refusal({image(0, 4, 32)}), "is [4, 32], but must be [1 to 4, 33]"));
  EXPECT_TRUE(contains(refusal({image(20, 4, 33)}), "has tokens 20 to 23, but of 23 tokens 0"));
  EXPECT_TRUE(contains(refusal({image(3, 4, 33), image(6, 4, 33)}), "of 23 tokens 7 are taken"));
  EXPECT_EQ(sequence.length(), 0);
}

TEST_F(MultimodalTest, FastNumericsEncodeImagesAsExactOnesDo) {
  const auto pixels = random_tensor({3, 3, 16, 16}, 5);
  const auto want = model_->encode_images(pixels);
  EXPECT_EQ(want.sizes(), at::IntArrayRef({3, kTokens, 33}));
  model_->set_numerics(Numerics::kFast);
  EXPECT_TRUE(near_to(model_->encode_images(pixels), want, 1e-5));
}

TEST_F(MultimodalTest, TellsHowFarTheEncodingOfImagesIs) {
  std::vector<std::pair<int64_t, int64_t>> calls;
  model_->encode_images(random_tensor({3, 3, 16, 16}, 5),
                        [&](int64_t done, int64_t total) { calls.emplace_back(done, total); });
  EXPECT_EQ(calls, (std::vector<std::pair<int64_t, int64_t>>{{1, 2}, {2, 2}}));
}

TEST(Gemma3ForMultimodalLM, ScalesTheRotaryFrequenciesOfGlobalLayers) {
  const Gemma3ForMultimodalLM model(multimodal_config());
  const auto dim = model->config().head_dim;
  EXPECT_TRUE(tensors_equal(model->local_freqs_cis, precompute_freqs_cis(dim, 2 * 64, 10'000)));
  EXPECT_TRUE(
      tensors_equal(model->global_freqs_cis, precompute_freqs_cis(dim, 2 * 64, 1'000'000, 8)));
}

TEST(MakeModel, MakesTheModelOfTheConfig) {
  EXPECT_EQ(make_model(multimodal_config())->signature(), "Gemma3ForMultimodalLM()");
  EXPECT_EQ(make_model(tiny_config(Architecture::kGemma3))->signature(), "GemmaForCausalLM()");
}

TEST(ImageBlocks, AreCountedWhereTheyBegin) {
  const auto is_image = at::tensor({1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0, 0}).view({2, 6}).to(at::kBool);
  const auto want = at::tensor({1, 1, 0, 2, 0, 0, 1, 1, 0, 2, 0, 0}, at::kLong).view({2, 6});
  EXPECT_TRUE(tensors_equal(image_blocks(is_image), want));
}

TEST(VisibleKeys, AreThoseBeforeAndThoseOfTheSameImage) {
  const auto blocks = at::tensor({0, 1, 1, 1, 0}, at::kLong).unsqueeze(0);
  const auto want = at::tensor({1, 0, 0, 0, 0,  //
                                1, 1, 1, 1, 0,  //
                                1, 1, 1, 1, 1})
                        .view({1, 1, 3, 5})
                        .to(at::kBool);
  const auto positions = at::tensor({0, 1, 4}, at::kLong);
  EXPECT_TRUE(tensors_equal(visible_keys(positions, blocks), want));
  // A window hides what is far before, and nothing that comes after.
  const auto in_window = at::tensor({1, 0, 0, 0, 0,  //
                                     1, 1, 1, 1, 0,  //
                                     0, 0, 0, 1, 1})
                             .view({1, 1, 3, 5})
                             .to(at::kBool);
  EXPECT_TRUE(tensors_equal(visible_keys(positions, blocks, 2), in_window));
}

}  // namespace
}  // namespace gemma
