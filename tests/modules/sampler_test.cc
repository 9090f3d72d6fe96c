#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>
#include <ostream>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/modules/sampler.h>

namespace gemma {
namespace {

using testing::parameter_names;
using testing::random_tensor;
using testing::tensors_close;
using testing::tensors_equal;

struct Filter {
  double temperature = 1.0;
  double top_p = 1.0;
  int64_t top_k = 1'000'000;
};

Sampler sampler_of(int64_t vocab_size, std::optional<double> cap = std::nullopt) {
  GemmaConfig config;
  config.final_logit_softcapping = cap;
  return Sampler(vocab_size, config);
}

// `rows` of hidden states that are logits themselves, by an embedding that is the identity.
std::pair<at::Tensor, at::Tensor> sample(const at::Tensor& rows, const Filter& filter) {
  const auto count = rows.size(0);
  const auto vocab_size = rows.size(1);
  return sampler_of(vocab_size)
      ->forward(at::eye(vocab_size), rows.unsqueeze(1), at::zeros({1}, at::kLong),
                at::full({count}, filter.temperature), at::full({count}, filter.top_p),
                at::full({count}, filter.top_k, at::kLong));
}

std::vector<int64_t> tokens_of(const at::Tensor& tokens) {
  return {tokens.const_data_ptr<int64_t>(), tokens.const_data_ptr<int64_t>() + tokens.numel()};
}

// How often each token is drawn, by 100,000 draws.
std::vector<double> frequencies(const std::vector<float>& logits, const Filter& filter) {
  constexpr int64_t kDraws = 100'000;
  at::manual_seed(1);
  const auto size = static_cast<int64_t>(logits.size());
  const auto tokens = sample(at::tensor(logits).expand({kDraws, size}), filter).first;
  std::vector<double> counts(logits.size());
  for (const auto token : tokens_of(tokens)) counts.at(static_cast<size_t>(token)) += 1;
  for (auto& count : counts) count /= kDraws;
  return counts;
}

// The definition: sorted, a token is dropped when those before it weigh more than top_p, or when
// top_k come before it; the rest is brought back to a sum of 1.
std::vector<double> filtered(const std::vector<float>& logits, const Filter& filter) {
  std::vector<double> probs;
  for (const auto logit : logits) probs.push_back(std::exp(logit / filter.temperature));
  const double sum = std::accumulate(probs.begin(), probs.end(), 0.0);
  for (auto& p : probs) p /= sum;
  std::vector<size_t> order(probs.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return probs[a] > probs[b]; });
  double before = 0;
  double kept = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    auto& p = probs[order[rank]];
    const bool dropped = before > filter.top_p || static_cast<int64_t>(rank) >= filter.top_k;
    before += p;
    if (dropped) p = 0;
    kept += p;
  }
  for (auto& p : probs) p /= kept;
  return probs;
}

void expect_draws(const std::vector<double>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t token = 0; token < got.size(); ++token) {
    EXPECT_NEAR(got[token], want[token], 0.01) << "token " << token;
    if (want[token] == 0) {
      EXPECT_EQ(got[token], 0) << "token " << token << " is drawn though it was dropped";
    }
  }
}

// Logits whose probabilities are these.
std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const auto p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

struct FilterRow {
  std::string name;
  std::vector<double> probabilities;
  Filter filter;
  std::vector<double> want;
};
std::ostream& operator<<(std::ostream& out, const FilterRow& row) { return out << row.name; }

class SamplerFilter : public ::testing::TestWithParam<FilterRow> {};

TEST_P(SamplerFilter, DrawsByTheRenormalizedProbabilitiesOfWhatIsKept) {
  const auto& [name, probabilities, filter, want] = GetParam();
  expect_draws(frequencies(logits_of(probabilities), filter), want);
}

const std::vector<double> kFour = {0.1, 0.4, 0.2, 0.3};
INSTANTIATE_TEST_SUITE_P(
    Sampler,
    SamplerFilter,
    ::testing::Values(
        FilterRow{"Everything", kFour, {}, kFour},
        FilterRow{"TopPOfOne", kFour, {.top_p = 1}, kFour},
        // The two before the third weigh 0.7.
        FilterRow{"TopPKeepsWhatCrossesIt", kFour, {.top_p = 0.69}, {0, 4. / 7, 0, 3. / 7}},
        FilterRow{"TopPKeepsOneMore", kFour, {.top_p = 0.71}, {0, 4. / 9, 2. / 9, 3. / 9}},
        FilterRow{"TopPBelowTheLargest", kFour, {.top_p = 0.1}, {0, 1, 0, 0}},
        FilterRow{"TopPOfZero", kFour, {.top_p = 0}, {0, 1, 0, 0}},
        FilterRow{"TopKOfOne", kFour, {.top_k = 1}, {0, 1, 0, 0}},
        FilterRow{"TopKOfThree", kFour, {.top_k = 3}, {0, 4. / 9, 2. / 9, 3. / 9}},
        FilterRow{"TopKOfTheVocabulary", kFour, {.top_k = 4}, kFour},
        FilterRow{"TopKBeyondTheVocabulary", kFour, {.top_k = 5}, kFour},
        FilterRow{"TopPIsNarrower", kFour, {.top_p = 0.5, .top_k = 3}, {0, 4. / 7, 0, 3. / 7}},
        FilterRow{"TopKIsNarrower", kFour, {.top_p = 0.9, .top_k = 2}, {0, 4. / 7, 0, 3. / 7}},
        // 0.1 : 0.2 : 0.3 : 0.4 squared.
        FilterRow{
            "LowTemperature", kFour, {.temperature = 0.5}, {1. / 30, 16. / 30, 4. / 30, 9. / 30}},
        // Top-p counts what the temperature makes of the probabilities: 16/30 and 25/30.
        FilterRow{"TopPAfterTemperature", kFour, {.temperature = 0.5, .top_p = 0.5}, {0, 1, 0, 0}},
        FilterRow{
            "TiesAreKeptTogether", {0.2, 0.2, 0.2, 0.4}, {.top_p = 0.9}, {0.2, 0.2, 0.2, 0.4}},
        FilterRow{"OneToken", {1}, {.top_p = 0.3, .top_k = 1}, {1}}),
    [](const auto& row) { return row.param.name; });

TEST(Sampler, DrawsAsTheDefinitionOfTheFiltersSays) {
  std::mt19937 engine(5);
  const auto uniform = [&](double low, double high) {
    return std::uniform_real_distribution(low, high)(engine);
  };
  for (int round = 0; round < 12; ++round) {
    std::vector<float> logits;
    const auto size = 2 + engine() % 8;
    for (size_t i = 0; i < size; ++i) logits.push_back(static_cast<float>(uniform(-3, 3)));
    const Filter filter{.temperature = uniform(0.3, 2),
                        .top_p = uniform(0.05, 1),
                        .top_k = 1 + static_cast<int64_t>(engine() % (size + 1))};
    SCOPED_TRACE(fmt::format("temperature {}, top_p {}, top_k {}, logits {}", filter.temperature,
                             filter.top_p, filter.top_k, fmt::join(logits, " ")));
    expect_draws(frequencies(logits, filter), filtered(logits, filter));
  }
}

// Which of equal tokens are kept is not defined, how many is.
TEST(Sampler, CutsTiesByCount) {
  const auto drawn = [](const std::vector<float>& logits, const Filter& filter) {
    at::manual_seed(1);
    std::set<int64_t> tokens;
    for (int draw = 0; draw < 200; ++draw) {
      tokens.insert(sample(at::tensor(logits).unsqueeze(0), filter).first.item<int64_t>());
    }
    return tokens.size();
  };
  EXPECT_EQ(drawn({1, 1, 1, 0}, {.top_k = 2}), 2U);
  EXPECT_EQ(drawn({1, 1, 1, 1}, {.top_k = 3}), 3U);
  // 0.25 each: the tokens before the third weigh 0.5, which is not more than top_p.
  EXPECT_EQ(drawn({1, 1, 1, 1}, {.top_p = 0.5}), 3U);
  EXPECT_EQ(drawn({1, 1, 1, 1}, {.top_p = 0.4}), 2U);
}

TEST(Sampler, TakesParametersOfItsOwnForEachRow) {
  constexpr int64_t kDraws = 20'000;
  at::manual_seed(1);
  const auto row = at::tensor(logits_of(kFour));
  const auto pattern = [](const at::Tensor& values) { return values.repeat({kDraws}); };
  const auto tokens =
      sampler_of(4)
          ->forward(at::eye(4), row.expand({3 * kDraws, 1, 4}), at::zeros({1}, at::kLong),
                    pattern(at::tensor({1.0F, 0.5F, 1.0F})),
                    pattern(at::tensor({0.69F, 1.0F, 1.0F})),
                    pattern(at::tensor({4, 4, 1}, at::kLong)))
          .first.view({kDraws, 3});
  const std::vector<std::vector<double>> want = {
      {0, 4. / 7, 0, 3. / 7}, {1. / 30, 16. / 30, 4. / 30, 9. / 30}, {0, 1, 0, 0}};
  for (int64_t kind = 0; kind < 3; ++kind) {
    for (int64_t token = 0; token < 4; ++token) {
      const auto share = (tokens.select(1, kind) == token).to(at::kDouble).mean().item<double>();
      EXPECT_NEAR(share, want[static_cast<size_t>(kind)][static_cast<size_t>(token)], 0.015)
          << "row " << kind << ", token " << token;
    }
  }
}

TEST(Sampler, GivesEqualTokensForEqualSeeds) {
  const auto rows = random_tensor({50, 451}, /*seed=*/1);
  const auto draw = [&](uint64_t seed) {
    at::manual_seed(seed);
    return sample(rows, {}).first;
  };
  EXPECT_TRUE(tensors_equal(draw(7), draw(7)));
  EXPECT_FALSE(tensors_equal(draw(7), draw(8)));
}

TEST(Sampler, IsGreedyWhenOneTokenIsLeft) {
  const auto rows = random_tensor({50, 451}, /*seed=*/1);
  const auto likeliest = rows.argmax(-1);
  EXPECT_TRUE(tensors_equal(sample(rows, {.top_k = 1}).first, likeliest));
  EXPECT_TRUE(tensors_equal(sample(rows, {.top_p = 1e-6}).first, likeliest));
  EXPECT_TRUE(tensors_equal(sample(rows, {.temperature = 1e-6}).first, likeliest));
}

// model.py line by line, for a batch, with a draw from the same generator.
TEST(Sampler, DrawsTheReferencesTokensForTheSameSeed) {
  const auto embedding = random_tensor({451, 33}, /*seed=*/1);
  const auto hidden = random_tensor({16, 1, 33}, /*seed=*/2);
  const auto temperatures = at::full({16}, 0.8);
  const auto top_ps = at::full({16}, 0.9);
  const auto top_ks = at::full({16}, 64, at::kLong);

  at::manual_seed(3);
  auto want_logits = at::matmul(hidden.squeeze(1), embedding.t());
  want_logits = at::tanh(want_logits / 30.0) * 30.0;
  want_logits.div_(temperatures.unsqueeze(1));
  auto [probs_sort, probs_idx] =
      at::sort(at::softmax(want_logits, -1, at::kFloat), -1, /*descending=*/true);
  const auto probs_sum = at::cumsum(probs_sort, -1);
  probs_sort = at::where((probs_sum - probs_sort) > top_ps.unsqueeze(1), 0, probs_sort);
  const auto ranks = at::arange(451).expand({16, -1});
  probs_sort = at::where(ranks >= top_ks.unsqueeze(1), 0, probs_sort);
  probs_sort.div_(probs_sort.sum(-1, /*keepdim=*/true));
  const auto probs = at::gather(probs_sort, -1, probs_idx.argsort());
  const auto want = at::multinomial(probs, /*num_samples=*/1, /*replacement=*/true).squeeze(-1);

  at::manual_seed(3);
  const auto [tokens, logits] =
      sampler_of(451, /*cap=*/30.0)
          ->forward(embedding, hidden, at::zeros({1}, at::kLong), temperatures, top_ps, top_ks);
  EXPECT_TRUE(tensors_equal(tokens, want));
  EXPECT_TRUE(tensors_equal(logits, want_logits));
}

// What greedy and sampled choices have in common: two rows of two positions.
class SamplerLogits : public ::testing::Test {
 protected:
  std::pair<at::Tensor, at::Tensor> sample(Sampler sampler,
                                           const std::optional<at::Tensor>& temperatures,
                                           const std::optional<at::Tensor>& bias = std::nullopt) {
    return sampler->forward(embedding_, hidden_, output_position_, temperatures, at::ones({2}),
                            at::ones({2}, at::kLong), bias);
  }

  const at::Tensor embedding_ = at::tensor({1.0F, 0.0F, 0.0F, 1.0F, 1.0F, 1.0F}).view({3, 2});
  const at::Tensor hidden_ =
      at::tensor({9.0F, 9.0F, 2.0F, -1.0F, 9.0F, 9.0F, -4.0F, 3.0F}).view({2, 2, 2});
  at::Tensor output_position_ = at::ones({1}, at::kLong);
  const at::Tensor raw_ = at::tensor({2.0F, -1.0F, 1.0F, -4.0F, 3.0F, -1.0F}).view({2, 3});
};

TEST_F(SamplerLogits, AreProductsWithTheEmbeddingAtTheOutputPosition) {
  const auto [tokens, logits] = sample(sampler_of(3), std::nullopt);
  EXPECT_TRUE(tensors_equal(logits, raw_));
  EXPECT_TRUE(tensors_equal(tokens, at::tensor({0, 1}, at::kLong)));
}

TEST_F(SamplerLogits, AreTheSameForAnOutputPositionWithoutDimensions) {
  output_position_ = at::scalar_tensor(1, at::kLong);
  EXPECT_TRUE(tensors_equal(sample(sampler_of(3), std::nullopt).second, raw_));
}

TEST_F(SamplerLogits, AreDividedByTheTemperature) {
  const auto logits = sample(sampler_of(3), at::tensor({2.0F, 0.5F})).second;
  EXPECT_TRUE(
      tensors_equal(logits, at::tensor({1.0F, -0.5F, 0.5F, -8.0F, 6.0F, -2.0F}).view({2, 3})));
}

TEST_F(SamplerLogits, AreCappedBeforeTheyAreDivided) {
  const auto want = 2 * at::tanh(raw_.to(at::kDouble) / 2);
  EXPECT_TRUE(tensors_close(sample(sampler_of(3, /*cap=*/2.0), std::nullopt).second, want));
  EXPECT_TRUE(
      tensors_close(sample(sampler_of(3, /*cap=*/2.0), at::full({2}, 0.5)).second, want / 0.5));
}

TEST_F(SamplerLogits, StayWithinTheCap) {
  const auto logits = sampler_of(3, /*cap=*/2.0)
                          ->forward(embedding_ * 1000, hidden_, output_position_, std::nullopt,
                                    at::ones({2}), at::ones({2}, at::kLong))
                          .second;
  EXPECT_LE(logits.abs().max().item<float>(), 2.0F);
}

TEST_F(SamplerLogits, IncludeTheBiasBeforeTheCap) {
  const auto bias = at::tensor({0.0F, 10.0F, 0.5F});
  const auto [tokens, logits] = sample(sampler_of(3), std::nullopt, bias);
  EXPECT_TRUE(tensors_equal(logits, raw_ + bias));
  EXPECT_TRUE(tensors_equal(tokens, at::tensor({1, 1}, at::kLong)));
  EXPECT_TRUE(tensors_close(sample(sampler_of(3, /*cap=*/2.0), std::nullopt, bias).second,
                            2 * at::tanh((raw_ + bias).to(at::kDouble) / 2)));
}

TEST_F(SamplerLogits, AreThoseOfTheProductOfEmbeddingAndScales) {
  const auto table = at::tensor({1, 2, -3, 4, 5, -6}, at::kChar).view({3, 2});
  const auto scales = at::tensor({0.5F, 2.0F, 0.25F});
  const auto logits = sampler_of(3)
                          ->forward({table, scales}, hidden_, output_position_, std::nullopt,
                                    at::ones({2}), at::ones({2}, at::kLong))
                          .second;
  // Rows (0.5, 1), (-6, 8), (1.25, -1.5) times (2, -1) and (-4, 3).
  EXPECT_TRUE(
      tensors_equal(logits, at::tensor({0.0F, -20.0F, 4.0F, 1.0F, 48.0F, -9.5F}).view({2, 3})));
}

TEST_F(SamplerLogits, LeaveTheHiddenStatesAsTheyAre) {
  const auto copy = hidden_.clone();
  sample(sampler_of(3, /*cap=*/2.0), at::full({2}, 0.5), at::ones({3}));
  EXPECT_TRUE(tensors_equal(hidden_, copy));
}

TEST(Sampler, GivesTheLikeliestTokenOfOneRowWithoutDimensions) {
  const auto greedy = [](int64_t rows) {
    return sampler_of(5)
        ->forward(at::eye(5), random_tensor({rows, 1, 5}, /*seed=*/1), at::zeros({1}, at::kLong),
                  std::nullopt, at::ones({rows}), at::ones({rows}, at::kLong))
        .first;
  };
  EXPECT_EQ(greedy(1).dim(), 0);
  EXPECT_EQ(greedy(2).sizes(), std::vector<int64_t>{2});
}

TEST(Sampler, GivesATokenAndLogitsForEachRow) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t rows : {1, 3}) {
      SCOPED_TRACE(fmt::format("{}, {} rows", c10::toString(dtype), rows));
      const auto [tokens, logits] =
          sampler_of(11, /*cap=*/30.0)
              ->forward(random_tensor({11, 7}, /*seed=*/1, dtype),
                        random_tensor({rows, 2, 7}, /*seed=*/2, dtype), at::ones({1}, at::kLong),
                        at::full({rows}, 0.7), at::full({rows}, 0.9),
                        at::full({rows}, 5, at::kLong));
      EXPECT_EQ(tokens.sizes(), std::vector<int64_t>{rows});
      EXPECT_EQ(tokens.scalar_type(), at::kLong);
      EXPECT_EQ(logits.sizes(), (std::vector<int64_t>{rows, 11}));
      EXPECT_EQ(logits.scalar_type(), dtype);
    }
  }
}

TEST(Sampler, HasNoParameters) { EXPECT_TRUE(parameter_names(*sampler_of(5)).empty()); }

}  // namespace
}  // namespace gemma
