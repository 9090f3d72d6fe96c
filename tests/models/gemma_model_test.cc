#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/models/gemma_model.h>

namespace gemma {
namespace {

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

GemmaModel random_model(const GemmaConfig& config) {
  GemmaModel model(config);
  randomize(*model, /*seed=*/1);
  return model;
}

struct ModelInputs {
  FreqsCis freqs_cis;
  std::vector<KVCache> caches;
  testing::LayerInputs shared;
};

ModelInputs model_inputs(const GemmaConfig& config, const at::Tensor& x) {
  ModelInputs inputs;
  for (const auto attn_type : {kGlobal, kLocal}) {
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      inputs.shared = layer_inputs(config, attn_type, x.size(0), x.size(1), x.scalar_type());
      if (attn_type == kGlobal) inputs.caches.push_back(inputs.shared.cache);
    }
    inputs.freqs_cis[attn_type] = inputs.shared.freqs_cis;
  }
  return inputs;
}

at::Tensor forward(GemmaModel model, const at::Tensor& x, const ModelInputs& inputs) {
  return model->forward(x, inputs.freqs_cis, inputs.shared.positions, inputs.caches,
                        inputs.shared.mask, inputs.shared.local_mask);
}

at::Tensor forward(GemmaModel model, const at::Tensor& x) {
  return forward(model, x, model_inputs(model->config(), x));
}

class ModelOf : public ::testing::TestWithParam<Architecture> {};
INSTANTIATE_TEST_SUITE_P(GemmaModel,
                         ModelOf,
                         ::testing::ValuesIn(testing::kArchitectures),
                         testing::architecture_name);

TEST_P(ModelOf, AgreesWithFloat64) {
  for (const bool quant : {false, true}) {
    SCOPED_TRACE(quant ? "int8" : "float32");
    auto config = tiny_config(GetParam());
    config.quant = quant;
    const auto model = random_model(config);
    const auto x = random_tensor({2, 7, config.hidden_size}, /*seed=*/2);
    EXPECT_TRUE(tensors_close(forward(model, x), oracle::model(oracle::weights_of(*model), "",
                                                               config, x.to(at::kDouble))));
  }
}

TEST_P(ModelOf, ComputesTheRowsOfABatchIndependently) {
  const auto config = tiny_config(GetParam());
  const auto model = random_model(config);
  const auto x = random_tensor({3, 5, config.hidden_size}, /*seed=*/2);
  const auto batch = forward(model, x);
  for (int64_t row = 0; row < 3; ++row) {
    EXPECT_TRUE(tensors_close(batch.narrow(0, row, 1), forward(model, x.narrow(0, row, 1))))
        << "row " << row;
  }
}

TEST_P(ModelOf, GivesThePastWhateverTheFutureHolds) {
  const auto config = tiny_config(GetParam());
  const auto model = random_model(config);
  const auto x = random_tensor({1, 6, config.hidden_size}, /*seed=*/2);
  auto changed = x.clone();
  changed.select(1, 5).fill_(1);
  EXPECT_TRUE(
      tensors_equal(forward(model, changed).narrow(1, 0, 5), forward(model, x).narrow(1, 0, 5)));
}

TEST_P(ModelOf, KeepsShapeAndDtype) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(c10::toString(dtype));
    const DefaultDtypeGuard guard(dtype);
    const auto config = tiny_config(GetParam());
    const auto x = random_tensor({2, 5, config.hidden_size}, /*seed=*/2, dtype);
    const auto y = forward(random_model(config), x);
    EXPECT_EQ(y.sizes(), x.sizes());
    EXPECT_EQ(y.scalar_type(), dtype);
    EXPECT_TRUE(at::isfinite(y).all().item<bool>());
  }
}

TEST_P(ModelOf, NormalizesItsOutput) {
  const auto model = random_model(tiny_config(GetParam()));
  model->norm->weight.zero_();
  const auto y = forward(model, random_tensor({1, 5, 33}, /*seed=*/2));
  EXPECT_TRUE(tensors_close(y.square().mean(-1), at::ones({1, 5})));
}

TEST(GemmaModel, RepeatsTheAttentionTypesOverTheLayers) {
  const auto types_of = [](const GemmaConfig& config) {
    const GemmaModel model(config);
    std::vector<AttentionType> types;
    for (const auto& layer : *model->layers) {
      types.push_back(layer->as<DecoderLayerImpl>()->attn_type());
    }
    return types;
  };
  EXPECT_EQ(types_of(tiny_config(Architecture::kGemma1)),
            (std::vector<AttentionType>{kGlobal, kGlobal}));
  EXPECT_EQ(types_of(tiny_config(Architecture::kGemma2)),
            (std::vector<AttentionType>{kLocal, kGlobal, kLocal}));
  EXPECT_EQ(types_of(tiny_config(Architecture::kGemma3)),
            (std::vector<AttentionType>{kLocal, kLocal, kLocal, kLocal, kLocal, kGlobal, kLocal}));
}

TEST(GemmaModel, IsGlobalThroughoutWithoutAttentionTypes) {
  auto config = tiny_config(Architecture::kGemma2);
  config.attn_types = std::nullopt;
  const GemmaModel model(config);
  for (size_t i = 0; i < model->layers->size(); ++i) {
    EXPECT_EQ(model->layers->at<DecoderLayerImpl>(i).attn_type(), kGlobal) << "layer " << i;
  }
}

TEST(GemmaModel, GivesGemma1LayersOfItsOwn) {
  const GemmaModel gemma1(tiny_config(Architecture::kGemma1));
  EXPECT_NE(gemma1->layers->ptr(0)->as<GemmaDecoderLayer>(), nullptr);
  const GemmaModel gemma3(tiny_config(Architecture::kGemma3));
  EXPECT_NE(gemma3->layers->ptr(0)->as<Gemma2DecoderLayer>(), nullptr);
}

TEST(GemmaModel, HasTheReferencesParameters) {
  auto config = tiny_config(Architecture::kGemma2);
  config.num_hidden_layers = 2;
  std::vector<std::string> want;
  for (const std::string layer : {"layers.0.", "layers.1."}) {
    for (const auto* const name :
         {"self_attn.qkv_proj.weight", "self_attn.o_proj.weight", "mlp.gate_proj.weight",
          "mlp.up_proj.weight", "mlp.down_proj.weight", "input_layernorm.weight",
          "post_attention_layernorm.weight", "pre_feedforward_layernorm.weight",
          "post_feedforward_layernorm.weight"}) {
      want.push_back(layer + name);
    }
  }
  want.emplace_back("norm.weight");
  EXPECT_EQ(parameter_names(*GemmaModel(config)), want);
}

TEST(GemmaModel, RefusesFewerCachesThanLayers) {
  const auto model = random_model(tiny_config(Architecture::kGemma2));
  const auto x = random_tensor({1, 4, 33}, /*seed=*/2);
  auto inputs = model_inputs(model->config(), x);
  inputs.caches.pop_back();
  const auto message =
      testing::message_of<std::invalid_argument>([&] { forward(model, x, inputs); });
  EXPECT_TRUE(testing::contains(message, "2 kv_caches for 3 layers"));
}

TEST(GemmaModel, NamesTheRotaryTableThatIsMissing) {
  const auto model = random_model(tiny_config(Architecture::kGemma2));
  const auto x = random_tensor({1, 4, 33}, /*seed=*/2);
  auto inputs = model_inputs(model->config(), x);
  inputs.freqs_cis.erase(kGlobal);
  const auto message =
      testing::message_of<std::invalid_argument>([&] { forward(model, x, inputs); });
  EXPECT_TRUE(testing::contains(message, "no table for GLOBAL (layer 1)"));
}

TEST(GemmaModel, RefusesAConfigThatNoModelCanBeBuiltFrom) {
  auto config = tiny_config(Architecture::kGemma1);
  config.num_hidden_layers = 0;
  EXPECT_THROW(GemmaModel{config}, std::invalid_argument);
}

}  // namespace
}  // namespace gemma
