#include <atomic>
#include <cmath>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/engine/engine.h>
#include <gemma/generate/causal_lm.h>
#include <gemma/generate/log_probs.h>
#include <gemma/models/griffin.h>

namespace gemma {
namespace {

using testing::architecture_name;
using testing::contains;
using testing::kArchitectures;
using testing::message_of;
using testing::randomize;
using testing::tiny_config;

using Ids = std::vector<int64_t>;

Ids random_prompt(uint32_t seed, int64_t length) {
  std::mt19937 random(seed);
  Ids ids{2};
  while (std::ssize(ids) < length) ids.push_back(4 + static_cast<int64_t>(random() % 400));
  return ids;
}

class PromptScoresTest : public ::testing::TestWithParam<Architecture> {
 protected:
  PromptScoresTest() {
    randomize(*model_, /*seed=*/1);
    model_->set_numerics(Numerics::kFast);
  }

  static GemmaConfig config() {
    auto config = tiny_config(GetParam());
    config.tokenizer = testing::data_path("tiny.model").string();
    config.max_position_embeddings = 300;
    return config;
  }

  static Request scored(Ids prompt, int64_t max_tokens = 0) {
    return {.prompt = std::move(prompt),
            .rules = {.sampling = {.temperature = 0, .logprobs = 2}, .max_tokens = max_tokens},
            .prompt_logprobs = 3};
  }

  static EngineOptions options() { return {.kv_dtype = torch::kFloat32}; }

  Answer alone(const Request& request) const {
    Engine engine(model_, options());
    return engine.generate({request}).front();
  }

  GemmaForCausalLM model_{config()};
};
INSTANTIATE_TEST_SUITE_P(All,
                         PromptScoresTest,
                         ::testing::ValuesIn(kArchitectures),
                         architecture_name);

void expect_same(const std::vector<GeneratedToken>& got, const std::vector<GeneratedToken>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].id, want[i].id);
    EXPECT_EQ(got[i].text, want[i].text);
    const bool is_none = std::isnan(got[i].logprob) && std::isnan(want[i].logprob);
    EXPECT_TRUE(is_none || got[i].logprob == want[i].logprob) << "token " << i;
    ASSERT_EQ(got[i].top.size(), want[i].top.size());
    for (size_t k = 0; k < got[i].top.size(); ++k) {
      EXPECT_EQ(got[i].top[k].token, want[i].top[k].token);
      EXPECT_EQ(got[i].top[k].logprob, want[i].top[k].logprob);
    }
  }
}

// [T - 1, V] over the vocabulary in the places of all tokens but the first.
at::Tensor log_probs_of(GemmaForCausalLM model, const Ids& prompt) {
  std::vector<at::Tensor> rows;
  log_probs(model, prompt.front(), std::span(prompt).subspan(1), {.window = 300},
            [&](std::span<const int64_t> /*tokens*/, const at::Tensor& values) {
              rows.push_back(values.clone());
            });
  return at::cat(rows);
}

TEST_P(PromptScoresTest, AreTheLogarithmsOfWhatTheModelExpects) {
  const auto prompt = random_prompt(3, 150);
  const auto answer = alone(scored(prompt));
  EXPECT_EQ(answer.finish_reason, FinishReason::kLength);
  EXPECT_TRUE(answer.tokens.empty());
  ASSERT_EQ(answer.prompt.size(), prompt.size());
  EXPECT_TRUE(std::isnan(answer.prompt.front().logprob));
  const auto fast = log_probs_of(model_, prompt);
  model_->set_numerics(Numerics::kExact);
  const auto exact = log_probs_of(model_, prompt);
  for (int64_t i = 1; i < std::ssize(prompt); ++i) {
    const auto& token = answer.prompt[static_cast<size_t>(i)];
    EXPECT_EQ(token.id, prompt[static_cast<size_t>(i)]);
    EXPECT_NEAR(token.logprob, fast[i - 1][token.id].item<float>(), 2e-6 * -token.logprob);
    EXPECT_NEAR(token.logprob, exact[i - 1][token.id].item<float>(), 1e-4 * -token.logprob);
    ASSERT_EQ(token.top.size(), 3U);
    EXPECT_EQ(token.top.front().token, fast[i - 1].argmax().item<int64_t>());
  }
}

TEST_P(PromptScoresTest, DependNeitherOnPartsNorOnOthersNorOnWhatIsKnown) {
  const auto request = scored(random_prompt(3, 200), /*max_tokens=*/5);
  const auto want = alone(request);
  EXPECT_EQ(want.tokens.size(), 5U);
  auto parts = options();
  parts.chunk = 7;
  Engine engine(model_, parts);
  expect_same(engine.generate({request}).front().prompt, want.prompt);
  // The cache has the prompt now.
  std::vector<Request> requests;
  for (uint32_t i = 0; i < 6; ++i) requests.push_back(scored(random_prompt(i, 40 + 30 * i), 3));
  requests.push_back(request);
  const auto answers = engine.generate(requests);
  expect_same(answers.back().prompt, want.prompt);
  expect_same(answers.back().tokens, want.tokens);
  EXPECT_EQ(answers.back().cached_tokens, 0);
  auto plain = request;
  plain.prompt_logprobs.reset();
  const auto known = engine.generate({plain}).front();
  EXPECT_GT(known.cached_tokens, 0);
  EXPECT_TRUE(known.prompt.empty());
  expect_same(known.tokens, want.tokens);
}

TEST_P(PromptScoresTest, DoNotDependOnMemoryThatIsShort) {
  std::vector<Request> requests;
  for (uint32_t i = 0; i < 12; ++i) requests.push_back(scored(random_prompt(i, 100 + 9 * i), 60));
  Engine large(model_, options());
  const auto want = large.generate(requests);
  auto small = options();
  small.kv_memory = large.status().kv_bytes / 32 * 3;
  Engine engine(model_, small);
  const auto got = engine.generate(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    expect_same(got[i].prompt, want[i].prompt);
    expect_same(got[i].tokens, want[i].tokens);
  }
}

TEST_P(PromptScoresTest, APromptMayFillTheModelWhereNothingFollows) {
  EXPECT_EQ(alone(scored(random_prompt(1, 300))).prompt.size(), 300U);
  EXPECT_TRUE(contains(message_of<std::exception>([&] { alone(scored(random_prompt(1, 300), 1)); }),
                       "leaves none"));
  EXPECT_TRUE(contains(message_of<std::exception>([&] { alone(scored(random_prompt(1, 301))); }),
                       "leaves none"));
  EXPECT_EQ(alone(scored({7})).prompt.size(), 1U);
  auto request = scored({7, 8});
  request.prompt_logprobs = 1'000'000;
  EXPECT_TRUE(
      contains(message_of<std::exception>([&] { alone(request); }), "prompt_logprobs is 1000000"));
  request.prompt_logprobs.reset();
  EXPECT_TRUE(contains(message_of<std::exception>([&] { alone(request); }), "must be 1 or more"));
}

TEST_P(PromptScoresTest, ATextEndsWithWhatItsCallbackThrows) {
  auto request = scored(random_prompt(1, 20), 5);
  request.on_prompt = [](const std::vector<GeneratedToken>& tokens) {
    EXPECT_EQ(tokens.size(), 20U);
    throw std::runtime_error("enough");
  };
  EXPECT_EQ(message_of<std::exception>([&] { alone(request); }), "enough");
}

// Texts with the same prompt.

std::vector<Request> seeded(const Request& request, uint64_t count) {
  std::vector<Request> requests;
  for (uint64_t i = 0; i < count; ++i) {
    requests.push_back(request);
    requests.back().rules.seed = i;
    requests.back().rules.sampling.temperature = 1.5;
    requests.back().rules.max_tokens = 1 + static_cast<int64_t>(i) * 7 % 40;
  }
  return requests;
}

TEST_P(PromptScoresTest, APromptGoesThroughTheModelOnceForAllTextsThatHaveIt) {
  const auto request = scored(random_prompt(5, 75));
  const auto requests = seeded(request, 30);
  Engine engine(model_, {.kv_dtype = torch::kFloat32, .max_batch = 4});
  const auto got = engine.generate(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto want = alone(requests[i]);
    expect_same(got[i].tokens, want.tokens);
    expect_same(got[i].prompt, want.prompt);
    EXPECT_EQ(got[i].text, want.text);
    EXPECT_EQ(got[i].cached_tokens, i == 0 ? 0 : 75);
  }
  const auto status = engine.status();
  EXPECT_EQ(status.kv_bytes_free + status.kv_bytes_cached, status.kv_bytes);
}

TEST_P(PromptScoresTest, APromptIsTheSameWhereMemoryIsShort) {
  const auto requests = seeded(scored(random_prompt(5, 130)), 24);
  Engine large(model_, options());
  const auto want = large.generate(requests);
  auto small = options();
  small.kv_memory = large.status().kv_bytes / 32 * 2;
  Engine engine(model_, small);
  const auto got = engine.generate(requests);
  for (size_t i = 0; i < requests.size(); ++i) expect_same(got[i].tokens, want[i].tokens);
}

TEST_P(PromptScoresTest, OthersGoOnWhereTheFirstTextOfAPromptEnds) {
  const auto requests = seeded(scored(random_prompt(5, 250)), 3);
  std::atomic<int> ended = 0;
  std::vector<Request> told = requests;
  std::vector<std::vector<GeneratedToken>> tokens(3);
  for (size_t i = 0; i < 3; ++i) {
    told[i].on_token = [&, i](const GeneratedToken& token) { tokens[i].push_back(token); };
    told[i].on_end = [&](const Ending& /*ending*/) { ++ended; };
  }
  auto slow = options();
  slow.chunk = 1;
  Engine engine(model_, slow);
  auto generations = engine.submit(told);
  generations[0].cancel();
  while (ended < 3) std::this_thread::yield();
  expect_same(tokens[1], alone(requests[1]).tokens);
  expect_same(tokens[2], alone(requests[2]).tokens);
  // Nobody is left behind where the engine goes.
  ended = 0;
  std::vector<Generation> others;
  {
    Engine other(model_, slow);
    others = other.submit(told);
  }
  EXPECT_EQ(ended, 3);
}

// Nothing of a recurrent layer can be taken back, or found in a cache.
TEST(PromptScoresOfRecurrentLayersTest, DependNeitherOnPartsNorOnTextsThatShareThePrompt) {
  using recurrentgemma::TemporalBlockType;
  recurrentgemma::Griffin model(recurrentgemma::GriffinConfig{
      .vocab_size = 451,
      .width = 72,
      .mlp_expanded_width = 52,
      .num_heads = 3,
      .block_types = {TemporalBlockType::kRecurrent, TemporalBlockType::kAttention,
                      TemporalBlockType::kRecurrent},
      .embeddings_scale_by_sqrt_dim = true,
      .attention_window_size = 21,
      .logits_soft_cap = 3.3,
      .lru_width = 60});
  randomize(*model, /*seed=*/1);
  model->set_tokenizer(Tokenizer(testing::data_path("tiny.model").string()));
  model->set_numerics(Numerics::kFast);
  const auto request = [] {
    return Request{.prompt = random_prompt(5, 100),
                   .rules = {.sampling = {.logprobs = 2}, .seed = 1, .max_tokens = 20},
                   .prompt_logprobs = 3};
  };
  Engine engine(model, {.kv_dtype = torch::kFloat32, .chunk = 7});
  auto requests = seeded(request(), 6);
  const auto got = engine.generate(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    Engine alone(model, {.kv_dtype = torch::kFloat32});
    const auto want = alone.generate({requests[i]}).front();
    expect_same(got[i].prompt, want.prompt);
    expect_same(got[i].tokens, want.tokens);
    EXPECT_EQ(got[i].cached_tokens, i == 0 ? 0 : 100);
  }
}

}  // namespace
}  // namespace gemma
