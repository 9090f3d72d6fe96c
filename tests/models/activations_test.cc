#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/generate/causal_lm.h>
#include <gemma/models/activations.h>
#include <gemma/models/logit_lens.h>

namespace gemma {
namespace {

using testing::contains;
using testing::kArchitectures;
using testing::message_of;
using testing::random_ids;
using testing::randomize;
using testing::tensors_close;
using testing::tensors_equal;
using testing::tiny_config;

constexpr int64_t kLength = 9;  // Past the window of the tiny configs.

class ActivationsOf : public ::testing::TestWithParam<Architecture> {
 protected:
  ActivationsOf() { randomize(*model_, /*seed=*/1); }

  std::vector<int64_t> tokens() const {
    return {ids_.const_data_ptr<int64_t>(), ids_.const_data_ptr<int64_t>() + kLength};
  }

  GemmaConfig config_ = tiny_config(GetParam());
  GemmaForCausalLM model_{config_};
  at::Tensor ids_ = random_ids(1, kLength);
};
INSTANTIATE_TEST_SUITE_P(Activations,
                         ActivationsOf,
                         ::testing::ValuesIn(kArchitectures),
                         testing::architecture_name);

TEST_P(ActivationsOf, AreTheValuesOfARun) {
  Activations activations(model_, {"blocks.*.hook_resid_post", "blocks.0.attn.hook_pattern"});
  const auto values = activations.of(tokens());
  const auto layers = config_.num_hidden_layers;
  EXPECT_EQ(std::ssize(values), layers + 1);
  EXPECT_EQ(std::ssize(activations.names()), layers + 1);
  for (int64_t i = 0; i < layers; ++i) {
    const auto want = model_->run(ids_, {.end = i + 1})[0];
    EXPECT_TRUE(tensors_equal(values.at(fmt::format("blocks.{}.hook_resid_post", i)), want)) << i;
  }
  EXPECT_EQ(values.at("blocks.0.attn.hook_pattern").sizes(),
            at::IntArrayRef({config_.num_attention_heads, kLength, kLength}));
}

TEST_P(ActivationsOf, AreMadeByTheLayersThatTheyNeedAlone) {
  const auto layers_of = [this](const std::string& point) {
    Activations activations(model_, {point});
    int64_t layers = 0;
    activations.of(tokens(), [&](int64_t done, int64_t /*total*/) { layers = done; });
    return layers;
  };
  EXPECT_EQ(layers_of("blocks.0.mlp.hook_post"), 1);
  EXPECT_EQ(layers_of("blocks.1.hook_resid_post"), 2);
  EXPECT_EQ(layers_of("ln_final.hook_out"), config_.num_hidden_layers);
}

TEST_P(ActivationsOf, LeaveNoTaps) {
  {
    const Activations activations(model_, {"blocks.0.hook_out"});
  }
  EXPECT_FALSE(model_->model->layers->at<DecoderLayerImpl>(0).is_tapped());
  // The sampler does not compute here.
  const auto message = message_of<std::invalid_argument>(
      [&] { const Activations activations(model_, {"blocks.0.hook_out", "sampler.hook_logits"}); });
  EXPECT_TRUE(contains(message, "'sampler.hook_logits' is not computed"));
  EXPECT_FALSE(model_->model->layers->at<DecoderLayerImpl>(0).is_tapped());
}

TEST_P(ActivationsOf, AfterTheLastLayerSayWhatTheModelSays) {
  Activations activations(model_,
                          {fmt::format("blocks.{}.hook_out", config_.num_hidden_layers - 1)});
  const auto residual = activations.of(tokens()).begin()->second;
  // More rows than are computed together.
  const auto likely = logit_lens(model_, residual.repeat({5, 1}), /*count=*/3);
  const auto [probabilities, ids] = model_->run(ids_)[0].softmax(-1).topk(3);
  EXPECT_TRUE(tensors_equal(likely.ids, ids.repeat({5, 1})));
  EXPECT_TRUE(tensors_close(likely.probabilities, probabilities.repeat({5, 1})));
  EXPECT_EQ(logit_lens(model_, residual, /*count=*/1 << 30).ids.size(1), config_.vocab_size);
}

}  // namespace
}  // namespace gemma
