#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/modules/decoder_layer.h>

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

using Layer = std::shared_ptr<DecoderLayerImpl>;

Layer random_layer(const GemmaConfig& config, AttentionType attn_type) {
  Layer layer;
  if (config.architecture == Architecture::kGemma1) {
    layer = std::make_shared<GemmaDecoderLayerImpl>(config);
  } else {
    layer = std::make_shared<Gemma2DecoderLayerImpl>(config, attn_type);
  }
  randomize(*layer, /*seed=*/1);
  return layer;
}

at::Tensor forward(const Layer& layer, const GemmaConfig& config, const at::Tensor& x) {
  const auto inputs =
      layer_inputs(config, layer->attn_type(), x.size(0), x.size(1), x.scalar_type());
  return layer->forward(x, inputs.freqs_cis, inputs.positions, inputs.cache, inputs.mask,
                        inputs.local_mask);
}

class DecoderLayerOf : public ::testing::TestWithParam<Architecture> {};
INSTANTIATE_TEST_SUITE_P(DecoderLayer,
                         DecoderLayerOf,
                         ::testing::ValuesIn(testing::kArchitectures),
                         testing::architecture_name);

TEST_P(DecoderLayerOf, AgreesWithFloat64) {
  for (const auto attn_type : {kGlobal, kLocal}) {
    for (const bool quant : {false, true}) {
      SCOPED_TRACE(fmt::format("{}{}", to_string(attn_type), quant ? ", int8" : ""));
      auto config = tiny_config(GetParam());
      config.quant = quant;
      const auto layer = random_layer(config, attn_type);
      const auto x = random_tensor({2, 7, config.hidden_size}, /*seed=*/2);
      EXPECT_TRUE(tensors_close(forward(layer, config, x),
                                oracle::decoder_layer(oracle::weights_of(*layer), "", config,
                                                      layer->attn_type(), x.to(at::kDouble))));
    }
  }
}

TEST(Gemma2DecoderLayer, AgreesWithFloat64WithoutTheOptionalNorms) {
  for (const bool pre : {false, true}) {
    for (const bool post : {false, true}) {
      SCOPED_TRACE(fmt::format("pre {}, post {}", pre, post));
      auto config = tiny_config(Architecture::kGemma2);
      config.use_pre_ffw_norm = pre;
      config.use_post_ffw_norm = post;
      const auto layer = random_layer(config, kGlobal);
      const auto x = random_tensor({1, 4, config.hidden_size}, /*seed=*/2);
      EXPECT_TRUE(tensors_close(forward(layer, config, x),
                                oracle::decoder_layer(oracle::weights_of(*layer), "", config,
                                                      kGlobal, x.to(at::kDouble))));
    }
  }
}

TEST_P(DecoderLayerOf, PassesItsInputOnWhenAttentionAndMlpGiveNothing) {
  const auto config = tiny_config(GetParam());
  const auto layer = random_layer(config, kGlobal);
  layer->self_attn->o_proj->weight.zero_();
  layer->mlp->down_proj->weight.zero_();
  const auto x = random_tensor({2, 4, config.hidden_size}, /*seed=*/2);
  EXPECT_TRUE(tensors_equal(forward(layer, config, x), x));
}

TEST_P(DecoderLayerOf, ComputesTheRowsOfABatchIndependently) {
  const auto config = tiny_config(GetParam());
  const auto layer = random_layer(config, kLocal);
  const auto x = random_tensor({3, 6, config.hidden_size}, /*seed=*/2);
  const auto batch = forward(layer, config, x);
  for (int64_t row = 0; row < 3; ++row) {
    EXPECT_TRUE(tensors_close(batch.narrow(0, row, 1), forward(layer, config, x.narrow(0, row, 1))))
        << "row " << row;
  }
}

// As the reference's: its layers are all global.
TEST(GemmaDecoderLayer, IgnoresTheLocalMask) {
  auto config = tiny_config(Architecture::kGemma1);
  const auto layer = random_layer(config, kGlobal);
  const auto x = random_tensor({1, 6, config.hidden_size}, /*seed=*/2);
  const auto want = forward(layer, config, x);
  config.sliding_window_size = 2;
  const auto windowed = random_layer(config, kGlobal);
  EXPECT_EQ(windowed->attn_type(), kGlobal);
  EXPECT_TRUE(tensors_equal(forward(windowed, config, x), want));
}

TEST(Gemma2DecoderLayer, TakesTheLocalMaskInALocalLayerOnly) {
  const auto config = tiny_config(Architecture::kGemma2);
  auto without_window = config;
  without_window.sliding_window_size = std::nullopt;
  const auto x = random_tensor({1, 6, config.hidden_size}, /*seed=*/2);
  const auto everything = forward(random_layer(without_window, kGlobal), without_window, x);
  EXPECT_TRUE(tensors_equal(forward(random_layer(config, kGlobal), config, x), everything));
  EXPECT_FALSE(tensors_close(forward(random_layer(config, kLocal), config, x), everything));
}

TEST_P(DecoderLayerOf, KeepsShapeAndDtype) {
  for_each_kind_of_weight([&](at::ScalarType dtype, bool quant) {
    auto config = tiny_config(GetParam());
    config.quant = quant;
    const auto x = random_tensor({2, 5, config.hidden_size}, /*seed=*/2, dtype);
    const auto y = forward(random_layer(config, kLocal), config, x);
    EXPECT_EQ(y.sizes(), x.sizes());
    EXPECT_EQ(y.scalar_type(), dtype);
    EXPECT_TRUE(at::isfinite(y).all().item<bool>());
  });
}

TEST(GemmaDecoderLayer, HasTheReferencesParameters) {
  const GemmaDecoderLayer layer(tiny_config(Architecture::kGemma1));
  EXPECT_EQ(parameter_names(*layer),
            (std::vector<std::string>{"self_attn.qkv_proj.weight", "self_attn.o_proj.weight",
                                      "mlp.gate_proj.weight", "mlp.up_proj.weight",
                                      "mlp.down_proj.weight", "input_layernorm.weight",
                                      "post_attention_layernorm.weight"}));
}

TEST(Gemma2DecoderLayer, HasTheReferencesParameters) {
  auto config = tiny_config(Architecture::kGemma3);
  EXPECT_EQ(
      parameter_names(*Gemma2DecoderLayer(config, kLocal)),
      (std::vector<std::string>{
          "self_attn.qkv_proj.weight", "self_attn.o_proj.weight", "self_attn.query_norm.weight",
          "self_attn.key_norm.weight", "mlp.gate_proj.weight", "mlp.up_proj.weight",
          "mlp.down_proj.weight", "input_layernorm.weight", "post_attention_layernorm.weight",
          "pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"}));
  config.use_qk_norm = false;
  config.use_pre_ffw_norm = false;
  config.use_post_ffw_norm = false;
  EXPECT_EQ(parameter_names(*Gemma2DecoderLayer(config, kLocal)),
            parameter_names(*GemmaDecoderLayer(tiny_config(Architecture::kGemma1))));
}

TEST(Gemma2DecoderLayer, HasTheTypeItWasGiven) {
  const auto config = tiny_config(Architecture::kGemma2);
  EXPECT_EQ(Gemma2DecoderLayer(config, kLocal)->attn_type(), kLocal);
  EXPECT_EQ(Gemma2DecoderLayer(config, kLocal)->self_attn->attn_type(), kLocal);
  EXPECT_EQ(Gemma2DecoderLayer(config, kGlobal)->attn_type(), kGlobal);
}

}  // namespace
}  // namespace gemma
