#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/generate/causal_lm.h>

namespace gemma {
namespace {

using testing::architecture_name;
using testing::kArchitectures;
using testing::randomize;
using testing::tiny_config;

using Texts = std::vector<std::string>;

// generate() with both numerics; tests/generate/causal_lm_test.cc has what is the reference's own.
class FastGenerate : public ::testing::TestWithParam<Architecture> {
 protected:
  FastGenerate() { randomize(*model_, /*seed=*/1); }

  static GemmaConfig config() {
    auto config = tiny_config(GetParam());
    config.tokenizer = testing::data_path("tiny.model").string();
    return config;
  }

  Texts generate(Numerics numerics,
                 const Texts& prompts,
                 std::optional<double> temperature,
                 const GenerateOptions& options = {}) {
    model_->set_numerics(numerics);
    at::manual_seed(9);
    return model_->generate(prompts, at::kCPU, /*output_len=*/20, temperature, 0.95, 64, options);
  }

  GemmaForCausalLM model_{config()};
};
INSTANTIATE_TEST_SUITE_P(All, FastGenerate, ::testing::ValuesIn(kArchitectures), architecture_name);

TEST_P(FastGenerate, SaysWhatTheReferenceSaysGreedyAndFromASeed) {
  for (const auto& prompts :
       {Texts{"The ferry"}, Texts{"The ferry leaves at noon", "We", "a b c"}}) {
    for (const auto temperature : {std::optional<double>(), std::optional(1.0)}) {
      EXPECT_EQ(generate(Numerics::kFast, prompts, temperature),
                generate(Numerics::kExact, prompts, temperature));
    }
  }
}

TEST_P(FastGenerate, TellsTheTokensOfEachText) {
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    std::vector<std::vector<int64_t>> told(2);
    const GenerateOptions options{
        .on_token = [&](int64_t row, int64_t token) { told[row].push_back(token); }};
    const auto texts = generate(numerics, {"The ferry leaves", "We"}, 1.0, options);
    for (size_t row = 0; row < texts.size(); ++row) {
      EXPECT_EQ(model_->tokenizer().decode(told[row]), texts[row]) << to_string(numerics);
    }
  }
}

TEST_P(FastGenerate, EndsEachTextBeforeItsStop) {
  std::vector<std::vector<int64_t>> told(2);
  const GenerateOptions listen{
      .on_token = [&](int64_t row, int64_t token) { told[row].push_back(token); }};
  generate(Numerics::kFast, {"The ferry leaves", "We"}, 1.0, listen);
  ASSERT_GE(told[0].size(), 4U);
  const auto stop = told[0][3];
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    const auto texts = generate(numerics, {"The ferry leaves", "We"}, 1.0, {.stop_ids = {stop}});
    for (size_t row = 0; row < texts.size(); ++row) {
      const std::vector<int64_t> want(told[row].begin(), std::ranges::find(told[row], stop));
      EXPECT_EQ(texts[row], model_->tokenizer().decode(want)) << to_string(numerics);
    }
  }
}

TEST_P(FastGenerate, EndsWithTheLastText) {
  std::vector<int64_t> told;
  const GenerateOptions listen{
      .on_token = [&](int64_t /*row*/, int64_t token) { told.push_back(token); }};
  generate(Numerics::kFast, {"The ferry"}, std::nullopt, listen);
  ASSERT_FALSE(told.empty());
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    int64_t steps = 0;
    generate(numerics, {"The ferry"}, std::nullopt,
             {.on_step = [&](int64_t /*step*/) { ++steps; }, .stop_ids = {told[0]}});
    EXPECT_EQ(steps, 1) << to_string(numerics);
  }
}

TEST_P(FastGenerate, TellsHowManyTokensEachPromptHas) {
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    std::vector<int64_t> told(2);
    generate(numerics, {"The ferry leaves", "We"}, std::nullopt,
             {.on_prompt = [&](int64_t row, int64_t tokens) { told[row] = tokens; }});
    EXPECT_EQ(told[0], std::ssize(model_->tokenizer().encode("The ferry leaves")));
    EXPECT_EQ(told[1], std::ssize(model_->tokenizer().encode("We")));
  }
}

TEST_P(FastGenerate, EndsWithinAPromptWhenACallbackThrows) {
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    int64_t layers = 0;
    const auto stop = [&](int64_t done, int64_t total) {
      EXPECT_EQ(done, ++layers);
      EXPECT_EQ(total, config().num_hidden_layers);
      if (layers == 2) throw std::out_of_range("enough");
    };
    EXPECT_THROW(generate(numerics, {"The ferry"}, std::nullopt, {.on_layer = stop}),
                 std::out_of_range);
    EXPECT_EQ(layers, 2);
  }
}

TEST_P(FastGenerate, ACallbackCannotChangeTheModel) {
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    const auto change = [&](int64_t /*step*/) { model_->set_numerics(Numerics::kExact); };
    EXPECT_THROW(generate(numerics, {"The ferry"}, std::nullopt, {.on_step = change}),
                 std::logic_error);
  }
}

TEST_P(FastGenerate, SaysThatTheWeightsAreNoNumbers) {
  for (const auto& weight : {model_->model->norm->weight, model_->embedder->weight}) {
    const auto number = weight.flatten()[3].clone();
    weight.view({-1})[3] = std::numeric_limits<float>::quiet_NaN();
    for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
      for (const auto temperature : {std::optional<double>(), std::optional(1.0)}) {
        const auto message = testing::message_of<std::runtime_error>(
            [&] { generate(numerics, {"The ferry"}, temperature); });
        EXPECT_TRUE(testing::contains(message, "the weights hold NaN or infinite numbers"));
      }
    }
    weight.view({-1})[3] = number;
  }
}

TEST_P(FastGenerate, SaysThatTheTemperatureIsTooSmall) {
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    const auto message =
        testing::message_of<std::runtime_error>([&] { generate(numerics, {"The ferry"}, 1e-44); });
    EXPECT_TRUE(testing::contains(message, "divided by the temperature, 1e-44"));
    for (const auto temperature : {1e-46, 1e39, -1.0}) {
      EXPECT_THROW(generate(numerics, {"The ferry"}, temperature), std::invalid_argument);
    }
  }
}

// Not through a ModelRunner: the caller's own masks and caches.
TEST_P(FastGenerate, ForwardWithMasksIsNearTheExactOne) {
  const auto ids = at::randint(5, 50, {2, 12}, at::kLong);
  const auto exact = testing::logits_by_pieces(model_, ids, {7, 1, 4});
  model_->set_numerics(Numerics::kFast);
  const auto fast = testing::logits_by_pieces(model_, ids, {7, 1, 4});
  for (size_t i = 0; i < exact.size(); ++i) {
    EXPECT_TRUE(at::allclose(fast[i], exact[i], /*rtol=*/1e-4, /*atol=*/1e-4));
  }
}

}  // namespace
}  // namespace gemma
