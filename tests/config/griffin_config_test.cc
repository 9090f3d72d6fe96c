#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/config/griffin_config.h>

namespace gemma::recurrentgemma {
namespace {

using testing::contains;
using testing::message_of;

constexpr auto kR = TemporalBlockType::kRecurrent;
constexpr auto kA = TemporalBlockType::kAttention;

using Shapes = std::map<std::string, std::vector<int64_t>>;

// Of a model with blocks R and A, 24 wide, with 2 heads.
Shapes shapes_of_two_blocks() {
  return {{"embedder.input_embedding", {37, 24}},
          {"blocks.0.channel_pre_norm.scale", {24}},
          {"blocks.0.mlp_block.ffw_up.w", {2, 24, 20}},
          {"blocks.0.recurrent_block.rg_lru.a_gate.w", {2, 15, 15}},
          {"blocks.1.channel_pre_norm.scale", {24}},
          {"blocks.1.attention_block.proj_k.weight", {12, 24}}};
}

SizesOf sizes_in(const Shapes& shapes) {
  return [shapes](const std::string& name) {
    const auto found = shapes.find(name);
    return found == shapes.end() ? std::vector<int64_t>() : found->second;
  };
}

const GriffinHyperparameters kGiven = {
    .embeddings_scale_by_sqrt_dim = true, .attention_window_size = 9, .logits_soft_cap = 3.5};

TEST(GriffinConfig, APresetHasTheSizesOfThePublishedModel) {
  const auto config = GriffinConfig::from_preset(Preset::kRecurrentGemma2BV1);
  EXPECT_EQ(config.vocab_size, 256'000);
  EXPECT_EQ(config.width, 2560);
  EXPECT_EQ(config.mlp_expanded_width, 7680);
  EXPECT_EQ(config.num_heads, 10);
  EXPECT_EQ(config.lru_width, 2560);
  EXPECT_EQ(config.num_layers(), 26);
  EXPECT_EQ(config.attention_window_size, 2048);
  EXPECT_EQ(config.logits_soft_cap, 30);
  EXPECT_TRUE(config.embeddings_scale_by_sqrt_dim);
  EXPECT_EQ(config.block_types[2], kA);
  EXPECT_EQ(config.block_types[24], kR);
}

TEST(GriffinConfig, EveryPresetIsAModel) {
  for (const auto preset : presets()) {
    EXPECT_NO_THROW(validate(GriffinConfig::from_preset(preset))) << to_string(preset);
  }
}

TEST(GriffinConfig, AShorterTextMakesTheWindowSmaller) {
  const auto window = [](int64_t length) {
    return GriffinConfig::from_preset(Preset::kHawkPaper7B, 7, length).attention_window_size;
  };
  EXPECT_EQ(window(100), 100);
  EXPECT_EQ(window(5000), 1024);
}

TEST(GriffinConfig, SizesComeFromTheWeights) {
  const auto config = config_from_sizes(sizes_in(shapes_of_two_blocks()), std::nullopt, kGiven);
  const GriffinConfig want{.vocab_size = 37,
                           .width = 24,
                           .mlp_expanded_width = 20,
                           .num_heads = 2,
                           .block_types = {kR, kA},
                           .embeddings_scale_by_sqrt_dim = true,
                           .attention_window_size = 9,
                           .logits_soft_cap = 3.5,
                           .lru_width = 30};
  EXPECT_EQ(config, want);
}

TEST(GriffinConfig, HeadsComeFromTheKeysWhereNoBlockIsRecurrent) {
  auto shapes = shapes_of_two_blocks();
  shapes.erase("blocks.0.recurrent_block.rg_lru.a_gate.w");
  shapes["blocks.0.attention_block.proj_k.weight"] = {12, 24};
  const auto config = config_from_sizes(sizes_in(shapes), std::nullopt, kGiven);
  EXPECT_EQ(config.num_heads, 2);
  EXPECT_EQ(config.lru_width, std::nullopt);
}

TEST(GriffinConfig, ThePresetOfTheWeightsIsFound) {
  const auto want = GriffinConfig::from_preset(Preset::kHawkPaper7B);
  Shapes shapes{{"embedder.input_embedding", {256'128, 4096}},
                {"blocks.0.mlp_block.ffw_up.w", {2, 4096, 12'288}}};
  for (int64_t i = 0; i < 32; ++i) {
    const auto block = "blocks." + std::to_string(i);
    shapes[block + ".channel_pre_norm.scale"] = {4096};
    shapes[block + ".recurrent_block.rg_lru.a_gate.w"] = {32, 176, 176};
  }
  EXPECT_EQ(preset_of(sizes_in(shapes)), Preset::kHawkPaper7B);
  const auto config = config_from_sizes(sizes_in(shapes), Preset::kHawkPaper7B);
  EXPECT_EQ(config.vocab_size, 256'128);
  EXPECT_EQ(config.block_types, want.block_types);
  EXPECT_EQ(preset_of(sizes_in(shapes_of_two_blocks())), std::nullopt);
}

TEST(GriffinConfig, WeightsOfAnotherModelAreRefused) {
  const auto refusal = [](const std::string& name, const std::vector<int64_t>& sizes) {
    auto shapes = shapes_of_two_blocks();
    shapes.erase(name);
    if (!sizes.empty()) shapes[name] = sizes;
    return message_of<std::invalid_argument>(
        [&] { config_from_sizes(sizes_in(shapes), std::nullopt, kGiven); });
  };
  EXPECT_TRUE(contains(refusal("embedder.input_embedding", {}),
                       "no tensor 'embedder.input_embedding'; are these the weights"));
  EXPECT_TRUE(contains(refusal("blocks.0.mlp_block.ffw_up.w", {24, 20}),
                       "wrong number of dimensions of 'blocks.0.mlp_block.ffw_up.w'"));
  EXPECT_TRUE(contains(refusal("blocks.1.attention_block.proj_k.weight", {}),
                       "blocks.1 is neither a recurrent nor an attention block"));
}

TEST(GriffinConfig, WhatNothingSaysIsAskedFor) {
  EXPECT_TRUE(contains(message_of<std::invalid_argument>([] {
                         config_from_sizes(sizes_in(shapes_of_two_blocks()), std::nullopt, {});
                       }),
                       "no embeddings_scale_by_sqrt_dim, which the weights do not say"));
  EXPECT_TRUE(contains(message_of<std::invalid_argument>([] {
                         config_from_sizes(sizes_in(shapes_of_two_blocks()), Preset::kHawkPaper7B);
                       }),
                       "the weights' width is not that of HAWK_PAPER_7B"));
}

}  // namespace
}  // namespace gemma::recurrentgemma
