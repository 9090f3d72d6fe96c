#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/models/griffin.h>

namespace gemma::recurrentgemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::parameter_names;
using testing::random_ids;
using testing::tensors_close;
using testing::tensors_equal;

constexpr auto kR = TemporalBlockType::kRecurrent;
constexpr auto kA = TemporalBlockType::kAttention;

GriffinConfig tiny_griffin_config() {
  return {.vocab_size = 37,
          .width = 24,
          .mlp_expanded_width = 20,
          .num_heads = 2,
          .block_types = {kR, kA, kR},
          .embeddings_scale_by_sqrt_dim = true,
          .attention_window_size = 4,
          .logits_soft_cap = 3.3};
}

Griffin make_griffin(const GriffinConfig& config = tiny_griffin_config()) {
  Griffin model(config);
  testing::randomize(*model, 3);
  return model;
}

at::Tensor positions_of(int64_t rows, int64_t length) {
  return at::arange(length).expand({rows, length});
}

at::Tensor ids_below(int64_t vocab_size, int64_t rows, int64_t length) {
  return random_ids(rows, length).remainder(vocab_size);
}

at::Tensor part(const at::Tensor& x, int64_t begin, int64_t end) { return x.slice(1, begin, end); }

TEST(Griffin, HasTheNamesOfGooglesFiles) {
  auto config = tiny_griffin_config();
  config.block_types = {kR, kA};
  const std::vector<std::string> want = {"embedder.input_embedding",
                                         "blocks.0.temporal_pre_norm.scale",
                                         "blocks.0.recurrent_block.linear_y.weight",
                                         "blocks.0.recurrent_block.linear_y.bias",
                                         "blocks.0.recurrent_block.linear_x.weight",
                                         "blocks.0.recurrent_block.linear_x.bias",
                                         "blocks.0.recurrent_block.linear_out.weight",
                                         "blocks.0.recurrent_block.linear_out.bias",
                                         "blocks.0.recurrent_block.conv_1d.w",
                                         "blocks.0.recurrent_block.conv_1d.b",
                                         "blocks.0.recurrent_block.rg_lru.a_param",
                                         "blocks.0.recurrent_block.rg_lru.input_gate.w",
                                         "blocks.0.recurrent_block.rg_lru.input_gate.b",
                                         "blocks.0.recurrent_block.rg_lru.a_gate.w",
                                         "blocks.0.recurrent_block.rg_lru.a_gate.b",
                                         "blocks.0.channel_pre_norm.scale",
                                         "blocks.0.mlp_block.ffw_up.w",
                                         "blocks.0.mlp_block.ffw_up.b",
                                         "blocks.0.mlp_block.ffw_down.weight",
                                         "blocks.0.mlp_block.ffw_down.bias",
                                         "blocks.1.temporal_pre_norm.scale",
                                         "blocks.1.attention_block.proj_q.weight",
                                         "blocks.1.attention_block.proj_k.weight",
                                         "blocks.1.attention_block.proj_v.weight",
                                         "blocks.1.attention_block.proj_final.weight",
                                         "blocks.1.attention_block.proj_final.bias",
                                         "blocks.1.channel_pre_norm.scale",
                                         "blocks.1.mlp_block.ffw_up.w",
                                         "blocks.1.mlp_block.ffw_up.b",
                                         "blocks.1.mlp_block.ffw_down.weight",
                                         "blocks.1.mlp_block.ffw_down.bias",
                                         "final_norm.scale"};
  EXPECT_EQ(parameter_names(*Griffin(config)), want);
}

TEST(Griffin, TokenByTokenIsTheWholeForAWindowShorterThanThePrompt) {
  auto model = make_griffin();
  const auto ids = ids_below(37, 2, 13);
  const auto whole = *model->forward(ids, positions_of(2, 13)).first;
  auto [logits, cache] = model->forward(part(ids, 0, 7), part(positions_of(2, 13), 0, 7));
  EXPECT_TRUE(tensors_close(*logits, part(whole, 0, 7)));
  for (int64_t t = 7; t < 13; ++t) {
    std::tie(logits, cache) =
        model->forward(part(ids, t, t + 1), part(positions_of(2, 13), t, t + 1), cache);
    EXPECT_TRUE(tensors_close(*logits, part(whole, t, t + 1))) << "token " << t;
  }
}

TEST(Griffin, PaddingOnTheLeftChangesNoLogits) {
  auto model = make_griffin();
  const auto ids = ids_below(37, 1, 9);
  const auto padded = (at::arange(9) - 4).clamp(/*min=*/-1).view({1, 9});
  const auto alone = *model->forward(part(ids, 4, 9), positions_of(1, 5)).first;
  EXPECT_TRUE(tensors_close(part(*model->forward(ids, padded).first, 4, 9), alone));
}

TEST(Griffin, LogitsAreThoseOfTheEmbeddingAndSoftlyLimited) {
  auto config = tiny_griffin_config();
  const auto capped = *make_griffin(config)->forward(ids_below(37, 1, 5), positions_of(1, 5)).first;
  config.logits_soft_cap = 0;
  const auto plain = *make_griffin(config)->forward(ids_below(37, 1, 5), positions_of(1, 5)).first;
  EXPECT_GT(plain.abs().max().item<double>(), 3.3);
  EXPECT_TRUE(tensors_close(capped, at::tanh(plain.to(at::kDouble) / 3.3) * 3.3));
}

TEST(Griffin, TheRootOfTheWidthIsRoundedToBfloat16) {
  auto model = make_griffin();
  const auto ids = ids_below(37, 1, 5);
  // The root of 24 is 4.899, of which bfloat16 has 4.90625.
  const auto want = model->embedder->input_embedding.index_select(0, ids[0]) * 4.90625;
  EXPECT_TRUE(tensors_equal(model->embedder->encode(ids)[0], want));
}

TEST(Griffin, WhatIsNotAskedForIsNotComputed) {
  auto model = make_griffin();
  const auto ids = ids_below(37, 1, 5);
  int64_t calls = 0;
  const auto count = [&](int64_t done, int64_t total) {
    EXPECT_EQ(done, ++calls);
    EXPECT_EQ(total, 3);
  };
  const auto nothing = model->forward(ids, positions_of(1, 5), std::nullopt, false, false, count);
  EXPECT_FALSE(nothing.first || nothing.second);
  EXPECT_EQ(calls, 0);
  const auto cache = model->forward(ids, positions_of(1, 5), std::nullopt, false, true, count);
  EXPECT_TRUE(!cache.first && cache.second);
  EXPECT_EQ(calls, 3);
}

TEST(Griffin, TheStateOfAPublishedModelIsSmall) {
  const auto bytes = [](Preset preset) {
    const auto size = state_size(GriffinConfig::from_preset(preset), at::kBFloat16);
    return std::pair(size.recurrent, size.attention);
  };
  // 18 blocks of 2560 features: 4 bytes, and 3 inputs of 2. 8 blocks of 2048 keys and values of
  // 256.
  EXPECT_EQ(bytes(Preset::kRecurrentGemma2BV1), std::pair(int64_t{460'800}, int64_t{16'777'216}));
  EXPECT_EQ(bytes(Preset::kHawkPaper7B), std::pair(int64_t{32 * 5632 * 10}, int64_t{0}));
}

TEST(Griffin, ACacheOfAnotherNumberOfBlocksIsRefused) {
  auto model = make_griffin();
  auto cache = model->init_cache(1, at::kFloat);
  cache.pop_back();
  const auto message = message_of<c10::ValueError>(
      [&] { model->forward(ids_below(37, 1, 1), positions_of(1, 1), cache); });
  EXPECT_TRUE(contains(message, "Griffin: the cache is of 2 blocks, but the model has 3"));
}

TEST(Griffin, FastNumericsAreRefused) {
  auto model = make_griffin();
  model->set_numerics(Numerics::kFast);
  EXPECT_EQ(
      message_of<std::logic_error>(
          [&] { model->forward(ids_below(37, 1, 1), positions_of(1, 1)); }),
      "Griffin: forward has exact numerics alone; call set_numerics('exact'), or use an Engine");
}

}  // namespace
}  // namespace gemma::recurrentgemma
