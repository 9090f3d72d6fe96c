#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/ops/cpu/cpu_ops.h>
#include <gemma/ops/row_sampling.h>

namespace gemma {
namespace {

using testing::message_of;
using testing::random_tensor;
using Failure = SampledToken::Failure;

constexpr int64_t kVocabulary = 1000;
constexpr auto kInfinity = std::numeric_limits<float>::infinity();

at::Tensor random_logits(int64_t rows, uint64_t seed = 1) {
  return random_tensor({rows, kVocabulary}, seed) * 5;
}

at::Generator generator_of(uint64_t seed) { return at::detail::createCPUGenerator(seed); }

SampledToken sample_one(const at::Tensor& logits, const SamplingRow& row) {
  return sample_rows(logits.clone().view({1, -1}), std::nullopt, {&row, 1})[0];
}

TEST(RowSampling, ARowWithoutTemperatureTakesTheLikeliest) {
  const auto logits = random_logits(3);
  const SamplingRules greedy{.temperature = 0};
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(sample_one(logits[i], {&greedy}).token, logits[i].argmax().item<int64_t>());
  }
}

// As the Sampler does, whose numbers are the reference's.
TEST(RowSampling, ASeedDrawsWhatASingleTextDraws) {
  const CpuOps ops;
  const auto embedding = random_tensor({kVocabulary, 16}, 1);
  const auto hidden = random_tensor({1, 16}, 2) * 3;
  const struct {
    double temperature, top_p;
    int64_t top_k;
  } cases[] = {{1.0, 0.95, 64}, {0.3, 0.5, 5}, {2.0, 1.0, kVocabulary}, {1.0, 0.0, 64}};
  for (const auto& [temperature, top_p, top_k] : cases) {
    for (uint64_t seed = 0; seed < 50; ++seed) {
      at::manual_seed(seed);
      const auto want =
          ops.sample(hidden, embedding, {}, {},
                     {at::full({1}, temperature), at::full({1}, top_p), at::full({1}, top_k)})
              .first;
      const SamplingRules rules{.temperature = temperature, .top_p = top_p, .top_k = top_k};
      const SamplingRow row{.rules = &rules, .generator = generator_of(seed)};
      EXPECT_EQ(sample_one(ops.logits(hidden, embedding, {}), row).token, want.item<int64_t>())
          << "seed " << seed;
    }
  }
}

// Of all tokens, more than are sorted at first.
TEST(RowSampling, AFlatDistributionIsDrawnFromInFull) {
  const auto logits = at::zeros({kVocabulary});
  const SamplingRules rules;
  std::vector<int64_t> tokens;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    tokens.push_back(sample_one(logits, {.rules = &rules, .generator = generator_of(seed)}).token);
  }
  std::ranges::sort(tokens);
  const auto different = std::ranges::unique(tokens).begin() - tokens.begin();
  EXPECT_GT(different, 150);
  EXPECT_GT(tokens[static_cast<size_t>(different - 1)], 900);
}

TEST(RowSampling, MinPLeavesOutTheUnlikely) {
  auto logits = at::full({kVocabulary}, -2.0F);
  logits[7] = 1.0F;
  logits[8] = 0.5F;  // e^-0.5 = 0.61 of the likeliest one's probability.
  const auto tokens_of = [&](double min_p) {
    const SamplingRules rules{.min_p = min_p};
    std::vector<int64_t> tokens;
    for (uint64_t seed = 0; seed < 100; ++seed) {
      tokens.push_back(
          sample_one(logits, {.rules = &rules, .generator = generator_of(seed)}).token);
    }
    std::ranges::sort(tokens);
    tokens.erase(std::ranges::unique(tokens).begin(), tokens.end());
    return tokens;
  };
  EXPECT_EQ(tokens_of(0.6), (std::vector<int64_t>{7, 8}));
  EXPECT_EQ(tokens_of(0.62), (std::vector<int64_t>{7}));
}

TEST(RowSampling, BiasPenaltiesAndTheMaskChangeWhatIsLikeliest) {
  auto logits = at::full({kVocabulary}, -4.0F);
  logits[10] = 3.0F;
  logits[700] = 2.5F;
  logits[999] = 2.0F;
  const auto token = [&](SamplingRules rules, std::vector<SeenToken> seen = {},
                         std::vector<uint32_t> mask = {}) {
    rules.temperature = 0;
    return sample_one(logits, {.rules = &rules, .seen = seen, .mask = mask}).token;
  };
  EXPECT_EQ(token({}), 10);
  EXPECT_EQ(token({.bias = {{10, -1.0F}}}), 700);
  EXPECT_EQ(token({.bias = {{10, -kInfinity}, {700, -kInfinity}}}), 999);
  EXPECT_EQ(token({.bias = {{5, 8.0F}}}), 5);
  // 3 / 1.3 = 2.3.
  EXPECT_EQ(token({.repetition_penalty = 1.3}, {{10}}), 700);
  EXPECT_EQ(token({.presence_penalty = 0.7}, {{10}}), 10) << "in the prompt only";
  EXPECT_EQ(token({.presence_penalty = 0.7}, {{10, 1}}), 700);
  EXPECT_EQ(token({.frequency_penalty = 0.3}, {{10, 1}}), 10);
  EXPECT_EQ(token({.frequency_penalty = 0.3}, {{10, 2}}), 700);
  std::vector<uint32_t> mask(kVocabulary / 32 + 1, ~0U);
  mask[10 / 32] &= ~(1U << 10);
  EXPECT_EQ(token({}, {}, mask), 700);
}

TEST(RowSampling, TellsTheModelsOwnProbabilities) {
  const auto logits = random_logits(1)[0];
  const auto want = (at::tanh(logits / 30) * 30).to(at::kDouble).log_softmax(-1);
  const SamplingRules rules{
      .temperature = 0.5, .bias = {{3, 100.0F}}, .logprobs = 5};  // Neither changes them.
  const SamplingRow row{.rules = &rules, .generator = generator_of(1)};
  const auto got = sample_rows(logits.clone().view({1, -1}), 30.0, {&row, 1})[0];
  EXPECT_EQ(got.token, 3);
  EXPECT_NEAR(got.logprob, want[3].item<double>(), 1e-5);
  const auto [values, tokens] = want.topk(5);
  ASSERT_EQ(got.top.size(), 5U);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(got.top[i].token, tokens[static_cast<int64_t>(i)].item<int64_t>());
    EXPECT_NEAR(got.top[i].logprob, values[static_cast<int64_t>(i)].item<double>(), 1e-5);
  }
}

TEST(RowSampling, ARowDoesNotDependOnTheOthers) {
  const auto logits = random_logits(40);
  std::vector<SamplingRules> rules;
  for (int i = 0; i < 40; ++i) {
    rules.push_back({.temperature = i % 3 * 0.7,
                     .top_p = i % 2 == 0 ? 0.9 : 1.0,
                     .top_k = i % 5 * 10,
                     .logprobs = i % 4 == 0 ? std::optional<int64_t>(2) : std::nullopt});
  }
  const auto row_at = [&](size_t i) {
    return SamplingRow{.rules = &rules[i], .generator = generator_of(i)};
  };
  const auto threads = at::get_num_threads();
  for (const int count : {1, 3}) {
    at::set_num_threads(count);
    std::vector<SamplingRow> rows;
    for (size_t i = 0; i < 40; ++i) rows.push_back(row_at(i));
    const auto together = sample_rows(logits.clone(), std::nullopt, rows);
    for (size_t i = 0; i < 40; ++i) {
      const auto alone = sample_one(logits[static_cast<int64_t>(i)], row_at(i));
      EXPECT_EQ(together[i].token, alone.token) << i;
      EXPECT_EQ(together[i].top.size(), alone.top.size());
      if (rules[i].logprobs) {
        EXPECT_EQ(together[i].logprob, alone.logprob);
      }
    }
  }
  at::set_num_threads(threads);
}

TEST(RowSampling, SaysWhyThereIsNoToken) {
  const SamplingRules rules{.bias = {{1, -kInfinity}}};
  auto logits = random_logits(1)[0];
  const std::vector<uint32_t> none(kVocabulary / 32 + 1, 0U);
  EXPECT_EQ(sample_one(logits, {.rules = &rules, .mask = none}).failure, Failure::kNothingAllowed);
  const SamplingRules cold{.temperature = 1e-44};
  EXPECT_EQ(sample_one(logits, {.rules = &cold}).failure, Failure::kNotFiniteByTemperature);
  for (const auto bad : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity}) {
    for (const int64_t place : {0, 500, 999}) {
      logits = random_logits(1)[0];
      logits[place] = bad;
      EXPECT_EQ(sample_one(logits, {.rules = &rules}).failure, Failure::kNotFinite) << bad;
    }
  }
}

TEST(RowSampling, RefusesRulesThatCannotBe) {
  const struct {
    SamplingRules rules;
    const char* message;
  } cases[] = {
      {{.temperature = -1}, "engine: temperature is -1, but must be 0 (greedy) or"},
      {{.top_p = -0.1}, "engine: top_p is -0.1, but must be a probability, 0 to 1"},
      {{.top_k = -1}, "engine: top_k is -1, but must be a number of tokens, or 0 for all"},
      {{.min_p = 1.5}, "engine: min_p is 1.5, but must be 0 to 1"},
      {{.repetition_penalty = 0}, "engine: repetition_penalty is 0, but must be above 0"},
      {{.presence_penalty = kInfinity}, "engine: presence_penalty is inf, but must be a number"},
      {{.frequency_penalty = kInfinity}, "engine: frequency_penalty is inf, but must be a number"},
      {{.bias = {{1000, 1.0F}}}, "engine: logit_bias has token 1000, but tokens are 0 to 999"},
      {{.bias = {{1, kInfinity}}}, "engine: logit_bias of token 1 is inf, but must be a number or"},
      {{.logprobs = -1}, "engine: logprobs is -1, but must be 0 or more tokens"},
  };
  for (const auto& [rules, message] : cases) {
    EXPECT_TRUE(testing::contains(
        message_of<std::invalid_argument>([&] { check(rules, "engine", kVocabulary); }), message));
  }
}

}  // namespace
}  // namespace gemma
