#include <random>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/engine/engine.h>
#include <gemma/engine/prefix_cache.h>
#include <gemma/generate/causal_lm.h>

namespace gemma {
namespace {

using testing::architecture_name;
using testing::kArchitectures;
using testing::randomize;
using testing::tiny_config;

using Ids = std::vector<int64_t>;

Ids random_ids(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  Ids ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(4 + static_cast<int64_t>(random() % 400));
  return ids;
}

Ids joined(Ids first, const Ids& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

class PrefixCacheTest : public ::testing::TestWithParam<Architecture> {
 protected:
  PrefixCacheTest() {
    randomize(*model_, /*seed=*/1);
    model_->set_numerics(Numerics::kFast);
  }

  static GemmaConfig config() {
    auto config = tiny_config(GetParam());
    config.tokenizer = testing::data_path("tiny.model").string();
    config.max_position_embeddings = 900;
    if (config.sliding_window_size) config.sliding_window_size = 100;
    return config;
  }

  bool has_windows() const { return model_->config().sliding_window_size.has_value(); }

  static Request request(Ids prompt, int64_t max_tokens = 3) {
    return {
        .prompt = std::move(prompt),
        .rules = {
            .sampling = {.temperature = 1.0, .logprobs = 2}, .seed = 5, .max_tokens = max_tokens}};
  }

  // The answer of an engine that has nothing of other texts.
  Answer alone(const Request& request) const {
    Engine engine(model_, {.prefix_cache = false});
    return engine.generate({request})[0];
  }

  // The same tokens, of logits with the same bits.
  static void expect_same(const Answer& got, const Answer& want) {
    ASSERT_EQ(got.tokens.size(), want.tokens.size());
    for (size_t i = 0; i < got.tokens.size(); ++i) {
      EXPECT_EQ(got.tokens[i].id, want.tokens[i].id);
      EXPECT_EQ(got.tokens[i].logprob, want.tokens[i].logprob);
      EXPECT_EQ(got.tokens[i].top[1].logprob, want.tokens[i].top[1].logprob);
    }
  }

  GemmaForCausalLM model_{config()};
};
INSTANTIATE_TEST_SUITE_P(All,
                         PrefixCacheTest,
                         ::testing::ValuesIn(kArchitectures),
                         architecture_name);

TEST_P(PrefixCacheTest, ATextThatBeginsAsAnotherHasTheBitsOfOneAlone) {
  const auto beginning = random_ids(333, 1);
  for (const int64_t chunk : {64, 100, 256, 512}) {
    Engine engine(model_, {.chunk = chunk});
    for (unsigned i = 0; i < 4; ++i) {
      // The third is the second again, the fourth is longer.
      auto ask = request(joined(beginning, random_ids(i == 3 ? 200 : 90, i == 2 ? 11 : 10 + i)));
      const auto got = engine.generate({ask})[0];
      expect_same(got, alone(ask));
      // 333 and 423 tokens in whole blocks. Windows are everywhere when chunks are that small.
      if (i == 0 || i == 2) {
        EXPECT_EQ(got.cached_tokens, i == 0 ? 0 : 384);
      } else if (chunk <= 100 || !has_windows()) {
        EXPECT_EQ(got.cached_tokens, 320);
      }
    }
  }
}

TEST_P(PrefixCacheTest, AnswersAreNotKept) {
  Engine engine(model_);
  const auto prompt = random_ids(100, 1);
  const auto first = engine.generate({request(prompt, 60)})[0];
  Ids both = prompt;
  for (const auto& token : first.tokens) both.push_back(token.id);
  const auto again = request(joined(both, {5, 6, 7}));
  const auto got = engine.generate({again})[0];
  EXPECT_EQ(got.cached_tokens, 64);
  expect_same(got, alone(again));
}

TEST_P(PrefixCacheTest, OneTextBegunIsKnownToThoseThatWait) {
  Engine engine(model_, {.max_batch = 8, .chunk = 64});
  const auto beginning = random_ids(200, 1);
  std::vector<Request> requests;
  for (unsigned i = 0; i < 8; ++i) requests.push_back(request(joined(beginning, {4 + i, 9})));
  const auto answers = engine.generate(requests);
  for (size_t i = 0; i < answers.size(); ++i) {
    expect_same(answers[i], alone(requests[i]));
    EXPECT_EQ(answers[i].cached_tokens, i == 0 ? 0 : 192);
  }
}

// A session counts what it has itself.
TEST_P(PrefixCacheTest, SaysHowMuchWasKnown) {
  Engine engine(model_);
  auto session = engine.session();
  session.feed(random_ids(50, 1));
  auto first = session.generate({.max_tokens = 4});
  while (first.next()) {
  }
  EXPECT_EQ(first.cached_tokens(), 0);
  session.feed(random_ids(7, 2));
  auto second = session.generate({.max_tokens = 4});
  while (second.next()) {
  }
  EXPECT_EQ(second.cached_tokens(), session.tokens().size() - 4 - 7 - 1);
}

TEST_P(PrefixCacheTest, OtherWeightsHaveOtherKeys) {
  Engine engine(model_);
  auto ask = request(random_ids(200, 1));
  engine.generate({ask});
  auto session = engine.session();
  session.feed(ask.prompt);
  auto generation = session.generate(ask.rules);
  while (generation.next()) {
  }
  session.truncate(std::ssize(ask.prompt));
  {
    const UseLock::Change change(model_->use_lock(), "test");
    randomize(*model_, /*seed=*/2);
  }
  const auto got = engine.generate({ask})[0];
  EXPECT_EQ(got.cached_tokens, 0);
  const auto want = alone(ask);
  expect_same(got, want);
  auto again = session.generate(ask.rules);
  EXPECT_EQ(again.next()->id, want.tokens[0].id);
}

TEST_P(PrefixCacheTest, WithoutItNothingIsKept) {
  Engine engine(model_, {.prefix_cache = false});
  const auto ask = request(random_ids(200, 1));
  engine.generate({ask});
  EXPECT_EQ(engine.status().kv_bytes_free, engine.status().kv_bytes);
  EXPECT_EQ(engine.generate({ask})[0].cached_tokens, 0);
}

// Prompts that branch from each other at random, in memory for a few of them.
TEST_P(PrefixCacheTest, MemoryThatIsShortChangesNoBits) {
  const Engine sized(model_, {.max_batch = 2});
  Engine engine(model_, {.kv_memory = sized.status().kv_bytes, .max_batch = 6, .chunk = 64});
  std::mt19937 random(3);
  std::vector<Request> requests;
  for (int i = 0; i < 60; ++i) {
    Ids prompt;
    while (prompt.size() < 60 + random() % 700) {
      const auto seed = random() % 3;
      prompt = joined(prompt, random_ids(1 + static_cast<int64_t>(random() % 150), seed));
    }
    requests.push_back(request(std::move(prompt), 1 + static_cast<int64_t>(random() % 8)));
  }
  int64_t cached = 0;
  for (int round = 0; round < 2; ++round) {
    const auto answers = engine.generate(requests);
    for (size_t i = 0; i < answers.size(); ++i) {
      if (round == 0) expect_same(answers[i], alone(requests[i]));
      cached += answers[i].cached_tokens;
    }
    const auto status = engine.status();
    EXPECT_EQ(status.kv_bytes_free + status.kv_bytes_cached, status.kv_bytes);
  }
  EXPECT_GT(cached, 0);
}

// The cache itself, with texts that go through the model by hand.
class KeptPrompts : public PrefixCacheTest {
 protected:
  // Its prompt goes through the model and is kept; then the text ends.
  void run(const Ids& prompt, const std::vector<ImageTokens>& images = {}) {
    Text text;
    text.feed(prompt, images);
    text.sequence = cache_.find(text);
    if (!text.sequence) text.sequence = runner_.make_sequence();
    while (text.pending() > 0) {
      const auto count = text.part(64);
      const auto part = text.images_of(count);
      const std::span tokens(text.tokens().data() + text.done(), static_cast<size_t>(count));
      runner_.prompt(std::vector<ModelRunner::Feed>{{&*text.sequence, tokens, part}});
      cache_.insert(text);
    }
  }

  int64_t known(const Ids& prompt, const std::vector<ImageTokens>& images = {}) {
    Text text;
    text.feed(prompt, images);
    return cache_.known(text);
  }

  int64_t free() const {
    int64_t blocks = 0;
    for (const auto& kind : runner_.store()->kinds()) blocks += kind.pool.free();
    return blocks;
  }

  ModelRunner runner_{model_, {.max_batch = 4, .chunk = 64}};
  const int64_t all_ = free();
  PrefixCache cache_{runner_.store()};
};
INSTANTIATE_TEST_SUITE_P(All, KeptPrompts, ::testing::ValuesIn(kArchitectures), architecture_name);

TEST_P(KeptPrompts, AreKnownInWholeBlocksButNeverInFull) {
  const auto prompt = random_ids(256, 1);
  run(prompt);
  EXPECT_EQ(known(prompt), 192);  // At least one token has to go through the model.
  EXPECT_EQ(known(joined(prompt, {5})), 256);
  EXPECT_EQ(known({prompt.begin(), prompt.begin() + 130}), 128);
  EXPECT_EQ(known({prompt.begin(), prompt.begin() + 64}), 0);
  auto other = prompt;
  other[70] = 404;
  EXPECT_EQ(known(other), 64);
  other[0] = 404;
  EXPECT_EQ(known(other), 0);
}

TEST_P(KeptPrompts, TheOneThatWasNotUsedForLongestGoesFirst) {
  const auto a = random_ids(200, 1), b = random_ids(200, 2), c = random_ids(200, 3);
  run(a);
  run(b);
  run(c);
  EXPECT_EQ(known(a), 192);  // Used again.
  // The first block of each is in no window of 100.
  for (int i = 0; i < (has_windows() ? 4 : 1); ++i) EXPECT_TRUE(cache_.evict());
  EXPECT_EQ(known(b), 0);
  EXPECT_EQ(known(c), 192);
  EXPECT_EQ(known(a), 192);
  while (cache_.evict()) {
  }
  EXPECT_EQ(known(a), 0);
  EXPECT_EQ(free(), all_);
  EXPECT_EQ(cache_.bytes(), 0);
}

// Blocks of local layers that no kept window has go before any prompt does.
TEST_P(KeptPrompts, LoseWindowsFirstButNotTheLast) {
  if (!has_windows()) return;
  const auto prompt = random_ids(400, 1);
  run(prompt);  // 6 blocks; a window of 100 reaches over the last 2.
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(cache_.evict());
  EXPECT_EQ(known(prompt), 384);
  EXPECT_EQ(known({prompt.begin(), prompt.begin() + 300}), 0);
  EXPECT_TRUE(cache_.evict());
  EXPECT_EQ(known(prompt), 0);
  EXPECT_EQ(free(), all_);
}

TEST_P(KeptPrompts, KeepAWindowWhereTextsWentDifferentWays) {
  const auto prompt = random_ids(400, 1);
  run(prompt);
  const Ids beginning(prompt.begin(), prompt.begin() + 200);
  run(joined(beginning, random_ids(150, 2)));
  // Both ends and the place where they part need 2 blocks each: one of 6 + 2 blocks is loose.
  if (has_windows()) cache_.evict();
  EXPECT_EQ(known(prompt), 384);
  EXPECT_EQ(known(joined(beginning, random_ids(90, 3))), 192);
}

TEST_P(KeptPrompts, StayWhileASequenceHasTheirBlocks) {
  const auto prompt = random_ids(400, 1);
  run(prompt);
  Text text;
  text.feed(prompt);
  text.sequence = cache_.find(text);
  while (cache_.evict()) {
  }
  EXPECT_EQ(known(prompt), 384);
  EXPECT_EQ(cache_.bytes(), 0);
  cache_.clear();
  EXPECT_LT(free(), all_);
  text.sequence.reset();
  EXPECT_EQ(free(), all_);
}

TEST_P(KeptPrompts, AreOfTheSameImages) {
  const auto width = model_->config().hidden_size;
  const auto image = at::randn({40, width}), other = at::randn({40, width});
  const auto prompt = random_ids(200, 1);
  run(prompt, {{50, image}});
  EXPECT_EQ(known(prompt, {{50, image}}), 192);
  EXPECT_EQ(known(prompt, {{50, image.clone()}}), 192);
  EXPECT_EQ(known(prompt, {{50, other}}), 0);
  EXPECT_EQ(known(prompt), 0);
  // No cut through an image: this one ends after 90 tokens.
  EXPECT_EQ(known({prompt.begin(), prompt.begin() + 100}, {{50, image}}), 0);
  while (cache_.evict()) {
  }
  EXPECT_EQ(free(), all_);
}

}  // namespace
}  // namespace gemma
