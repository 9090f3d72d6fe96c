#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/modules/attention.h>
#include <gemma/modules/masks.h>

namespace gemma {
namespace {

using testing::for_each_kind_of_weight;
using testing::layer_inputs;
using testing::parameter_names;
using testing::random_tensor;
using testing::randomize;
using testing::tensors_close;
using testing::tensors_equal;
using testing::tiny_config;
namespace oracle = testing::oracle;

constexpr auto kGlobal = AttentionType::kGlobal;
constexpr auto kLocal = AttentionType::kLocalSliding;

at::Tensor attend(GemmaAttention attention,
                  const at::Tensor& x,
                  const testing::LayerInputs& inputs) {
  return attention->forward(x, inputs.freqs_cis, inputs.positions, inputs.cache, inputs.mask,
                            inputs.local_mask);
}

// A whole sequence at once.
at::Tensor attend(GemmaAttention attention, const GemmaConfig& config, const at::Tensor& x) {
  return attend(
      attention, x,
      layer_inputs(config, attention->attn_type(), x.size(0), x.size(1), x.scalar_type()));
}

GemmaAttention random_attention(const GemmaConfig& config, AttentionType attn_type) {
  GemmaAttention attention(config, attn_type);
  randomize(*attention, /*seed=*/1);
  return attention;
}

// One head of two numbers; queries and keys are zero, so that all visible keys weigh the same;
// values and outputs are the hidden states themselves.
GemmaConfig averaging_config() {
  auto config = tiny_config(Architecture::kGemma1);
  config.num_attention_heads = 1;
  config.hidden_size = 2;
  config.head_dim = 2;
  return config;
}

GemmaAttention averaging_attention(const GemmaConfig& config, AttentionType attn_type) {
  GemmaAttention attention(config, attn_type);
  attention->qkv_proj->weight.zero_();
  attention->qkv_proj->weight.narrow(0, 4, 2).copy_(at::eye(2));
  attention->o_proj->weight.copy_(at::eye(2));
  return attention;
}

TEST(GemmaAttention, AveragesTheVisibleValuesWhenAllScoresAreEqual) {
  const auto config = averaging_config();
  const auto x = at::tensor({1.0F, 0.0F, 3.0F, 2.0F, 5.0F, 4.0F}).view({1, 3, 2});
  const auto want = at::tensor({1.0F, 0.0F, 2.0F, 1.0F, 3.0F, 2.0F}).view({1, 3, 2});
  EXPECT_TRUE(tensors_close(attend(averaging_attention(config, kGlobal), config, x), want));
}

TEST(GemmaAttention, AveragesOverTheWindowInALocalLayer) {
  auto config = averaging_config();
  config.sliding_window_size = 2;
  const auto x = at::tensor({1.0F, 0.0F, 3.0F, 2.0F, 5.0F, 4.0F}).view({1, 3, 2});
  const auto want = at::tensor({1.0F, 0.0F, 2.0F, 1.0F, 4.0F, 3.0F}).view({1, 3, 2});
  EXPECT_TRUE(tensors_close(attend(averaging_attention(config, kLocal), config, x), want));
}

class AttentionOf : public ::testing::TestWithParam<Architecture> {};
INSTANTIATE_TEST_SUITE_P(GemmaAttention,
                         AttentionOf,
                         ::testing::ValuesIn(testing::kArchitectures),
                         testing::architecture_name);

TEST_P(AttentionOf, AgreesWithFloat64) {
  for (const auto attn_type : {kGlobal, kLocal}) {
    for (const bool quant : {false, true}) {
      SCOPED_TRACE(fmt::format("{}{}", to_string(attn_type), quant ? ", int8" : ""));
      auto config = tiny_config(GetParam());
      config.quant = quant;
      const auto attention = random_attention(config, attn_type);
      const auto x = random_tensor({2, 9, config.hidden_size}, /*seed=*/2);
      EXPECT_TRUE(tensors_close(attend(attention, config, x),
                                oracle::attention(oracle::weights_of(*attention), "", config,
                                                  attn_type, x.to(at::kDouble))));
    }
  }
}

TEST(GemmaAttention, AgreesWithFloat64WhenHeadsShareKeysAndValuesInGroups) {
  auto config = tiny_config(Architecture::kGemma2);
  config.num_attention_heads = 6;
  for (const int64_t kv_heads : {1, 2, 3, 6}) {
    SCOPED_TRACE(kv_heads);
    config.num_key_value_heads = kv_heads;
    const auto attention = random_attention(config, kGlobal);
    const auto x = random_tensor({2, 5, config.hidden_size}, /*seed=*/2);
    EXPECT_TRUE(tensors_close(
        attend(attention, config, x),
        oracle::attention(oracle::weights_of(*attention), "", config, kGlobal, x.to(at::kDouble))));
  }
}

TEST_P(AttentionOf, GivesThePastWhateverTheFutureHolds) {
  const auto config = tiny_config(GetParam());
  const auto attention = random_attention(config, kGlobal);
  const auto x = random_tensor({1, 8, config.hidden_size}, /*seed=*/2);
  auto changed = x.clone();
  changed.narrow(1, 5, 3).copy_(random_tensor({1, 3, config.hidden_size}, /*seed=*/3));
  const auto before = attend(attention, config, x);
  const auto after = attend(attention, config, changed);
  EXPECT_TRUE(tensors_equal(after.narrow(1, 0, 5), before.narrow(1, 0, 5)));
  EXPECT_FALSE(tensors_close(after.narrow(1, 5, 3), before.narrow(1, 5, 3)));
}

TEST_P(AttentionOf, GivesTokenByTokenWhatItGivesAtOnce) {
  const auto config = tiny_config(GetParam());
  for (const auto attn_type : {kGlobal, kLocal}) {
    SCOPED_TRACE(to_string(attn_type));
    const auto attention = random_attention(config, attn_type);
    const auto x = random_tensor({2, 8, config.hidden_size}, /*seed=*/2);
    const auto at_once = attend(attention, config, x);
    auto inputs = layer_inputs(config, attn_type, /*batch_size=*/2, /*length=*/8);
    for (int64_t i = 0; i < 8; ++i) {
      auto step = inputs;  // The same caches.
      step.freqs_cis = inputs.freqs_cis.narrow(0, i, 1);
      step.positions = inputs.positions.narrow(0, i, 1);
      step.mask = inputs.mask.narrow(2, i, 1);
      if (inputs.local_mask) step.local_mask = inputs.local_mask->narrow(2, i, 1);
      EXPECT_TRUE(
          tensors_close(attend(attention, x.narrow(1, i, 1), step), at_once.narrow(1, i, 1)))
          << "token " << i;
    }
  }
}

TEST_P(AttentionOf, ComputesTheRowsOfABatchIndependently) {
  const auto config = tiny_config(GetParam());
  const auto attention = random_attention(config, kLocal);
  const auto x = random_tensor({3, 6, config.hidden_size}, /*seed=*/2);
  const auto batch = attend(attention, config, x);
  for (int64_t row = 0; row < 3; ++row) {
    EXPECT_TRUE(
        tensors_close(batch.narrow(0, row, 1), attend(attention, config, x.narrow(0, row, 1))))
        << "row " << row;
  }
}

TEST(GemmaAttention, TakesTheLocalMaskOnlyInALocalLayerWithAWindow) {
  struct Row {
    AttentionType attn_type;
    std::optional<int64_t> window;
    bool with_local_mask;
    bool local;
  };
  auto config = tiny_config(Architecture::kGemma2);
  const auto x = random_tensor({1, 8, config.hidden_size}, /*seed=*/2);
  const auto positions = at::arange(8);
  const auto causal = causal_mask(positions, /*max_seq_len=*/8);
  const auto sliding = sliding_window_mask(positions, /*max_seq_len=*/8, /*window=*/3);
  for (const auto& row : {Row{kLocal, 3, true, true}, Row{kGlobal, 3, true, false},
                          Row{kLocal, std::nullopt, true, false}, Row{kLocal, 3, false, false}}) {
    SCOPED_TRACE(fmt::format("{}, window {}, local mask {}", to_string(row.attn_type),
                             row.window.value_or(0), row.with_local_mask));
    config.sliding_window_size = row.window;
    auto inputs = layer_inputs(config, row.attn_type, /*batch_size=*/1, /*length=*/8);
    inputs.mask = causal;
    inputs.local_mask = row.with_local_mask ? std::optional(sliding) : std::nullopt;
    const auto got = attend(random_attention(config, row.attn_type), x, inputs);

    auto plain = layer_inputs(config, kGlobal, /*batch_size=*/1, /*length=*/8);
    plain.mask = row.local ? sliding : causal;
    const auto want = attend(random_attention(config, kGlobal), x, plain);
    EXPECT_TRUE(tensors_equal(got, want));
  }
}

TEST(GemmaAttention, TakesAMaskForEachRowOfABatch) {
  const auto config = averaging_config();
  auto inputs = layer_inputs(config, kGlobal, /*batch_size=*/2, /*length=*/2);
  const float hidden = -2.3819763e38F;
  inputs.mask =
      at::tensor({0.0F, hidden, 0.0F, 0.0F, hidden, 0.0F, hidden, 0.0F}).view({2, 1, 2, 2});
  const auto x = at::tensor({1.0F, 0.0F, 3.0F, 2.0F, 1.0F, 0.0F, 3.0F, 2.0F}).view({2, 2, 2});
  const auto want = at::tensor({1.0F, 0.0F, 2.0F, 1.0F, 3.0F, 2.0F, 3.0F, 2.0F}).view({2, 2, 2});
  EXPECT_TRUE(tensors_close(attend(averaging_attention(config, kGlobal), x, inputs), want));
}

TEST(GemmaAttention, WritesKeysAndValuesAtTheWriteIndicesOnly) {
  const auto config = tiny_config(Architecture::kGemma1);
  auto attention = random_attention(config, kGlobal);
  auto inputs = layer_inputs(config, kGlobal, /*batch_size=*/1, /*length=*/6);
  inputs.cache.k.fill_(7);
  inputs.cache.v.fill_(7);
  inputs.positions = at::tensor({1, 4}, at::kLong);
  inputs.freqs_cis = inputs.freqs_cis.index_select(0, inputs.positions);
  inputs.mask = causal_mask(inputs.positions, /*max_seq_len=*/6);
  const auto x = random_tensor({1, 2, config.hidden_size}, /*seed=*/2);
  attend(attention, x, inputs);

  for (const int64_t slot : {0, 2, 3, 5}) {
    EXPECT_TRUE((inputs.cache.k.select(1, slot) == 7).all().item<bool>()) << "slot " << slot;
    EXPECT_TRUE((inputs.cache.v.select(1, slot) == 7).all().item<bool>()) << "slot " << slot;
  }
  // Heads 0 to 2 are queries, then come the key head and the value head.
  const auto heads = attention->qkv_proj(x).view({1, 2, 5, config.head_dim});
  EXPECT_TRUE(
      tensors_equal(inputs.cache.v.index_select(1, inputs.positions), heads.narrow(2, 4, 1)));
  const auto keys = oracle::rope(
      at::cat({at::zeros({1, 1, 1, config.head_dim}), heads.narrow(2, 3, 1).narrow(1, 0, 1)}, 1)
          .to(at::kDouble),
      /*theta=*/10'000);
  EXPECT_TRUE(tensors_close(inputs.cache.k.narrow(1, 1, 1), keys.narrow(1, 1, 1)));
}

TEST(GemmaAttention, LeavesItsInputAsItIs) {
  const auto config = tiny_config(Architecture::kGemma3);
  const auto x = random_tensor({1, 4, config.hidden_size}, /*seed=*/2);
  const auto copy = x.clone();
  attend(random_attention(config, kGlobal), config, x);
  EXPECT_TRUE(tensors_equal(x, copy));
}

TEST(GemmaAttention, ScalesQueriesByHeadDimUnlessToldOtherwise) {
  auto config = tiny_config(Architecture::kGemma1);
  config.head_dim = 16;
  EXPECT_EQ(GemmaAttention(config, kGlobal)->scaling(), 0.25);
  config.query_pre_attn_scalar = 4;
  EXPECT_EQ(GemmaAttention(config, kGlobal)->scaling(), 0.5);
}

TEST_P(AttentionOf, KeepsShapeAndDtype) {
  for_each_kind_of_weight([&](at::ScalarType dtype, bool quant) {
    auto config = tiny_config(GetParam());
    config.quant = quant;
    const auto x = random_tensor({2, 5, config.hidden_size}, /*seed=*/2, dtype);
    const auto y = attend(random_attention(config, kLocal), config, x);
    EXPECT_EQ(y.sizes(), x.sizes());
    EXPECT_EQ(y.scalar_type(), dtype);
    EXPECT_TRUE(at::isfinite(y).all().item<bool>());
  });
}

TEST(GemmaAttention, HasTheReferencesParameters) {
  auto config = tiny_config(Architecture::kGemma1);
  const GemmaAttention plain(config, kGlobal);
  EXPECT_EQ(parameter_names(*plain),
            (std::vector<std::string>{"qkv_proj.weight", "o_proj.weight"}));
  EXPECT_EQ(plain->qkv_proj->weight.sizes(), (std::vector<int64_t>{(3 + 2) * 24, 33}));
  EXPECT_EQ(plain->o_proj->weight.sizes(), (std::vector<int64_t>{33, 3 * 24}));

  config.quant = true;
  EXPECT_EQ(parameter_names(*GemmaAttention(config, kGlobal)),
            (std::vector<std::string>{"qkv_proj.weight", "qkv_proj.weight_scaler", "o_proj.weight",
                                      "o_proj.weight_scaler"}));

  EXPECT_EQ(parameter_names(*GemmaAttention(tiny_config(Architecture::kGemma3), kGlobal)),
            (std::vector<std::string>{"qkv_proj.weight", "o_proj.weight", "query_norm.weight",
                                      "key_norm.weight"}));
}

TEST(GemmaAttention, RefusesHeadsThatCannotShareTheKeys) {
  auto config = tiny_config(Architecture::kGemma1);
  config.num_key_value_heads = 2;
  EXPECT_THROW(GemmaAttention(config, kGlobal), std::invalid_argument);
}

TEST(GemmaAttention, RefusesHiddenStatesWithoutABatch) {
  const auto config = tiny_config(Architecture::kGemma1);
  const auto attention = random_attention(config, kGlobal);
  const auto inputs = layer_inputs(config, kGlobal, /*batch_size=*/1, /*length=*/4);
  const auto message = testing::message_of<c10::Error>(
      [&] { attend(attention, random_tensor({4, config.hidden_size}, /*seed=*/2), inputs); });
  EXPECT_TRUE(testing::contains(message, "hidden_states must be [B, L, E], got [4, 33]"));
}

}  // namespace
}  // namespace gemma
