#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/runner_texts.h"
#include "tests/testing.h"

#include <gemma/engine/model_runner.h>

namespace gemma {
namespace {

using testing::architecture_name;
using testing::contains;
using testing::hidden_states_alone;
using testing::kArchitectures;
using testing::message_of;
using testing::near_to;
using testing::randomize;
using testing::tiny_config;

constexpr int64_t kLength = 45;  // Far past the window of the tiny configs.

std::vector<int64_t> random_ids(int64_t count, const GemmaConfig& config) {
  const auto ids = at::randint(config.vocab_size, {count}, at::kLong);
  return {ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + count};
}

class ModelRunnerTest : public ::testing::TestWithParam<Architecture> {
 protected:
  ModelRunnerTest() {
    at::manual_seed(1);
    randomize(*model_, /*seed=*/1);
    model_->set_numerics(Numerics::kFast);
    ids_ = random_ids(kLength, config_);
  }

  // Hidden states of all tokens, fed at once.
  at::Tensor at_once() {
    ModelRunner runner(model_);
    auto sequence = runner.make_sequence();
    return runner.extend(sequence, ids_);
  }

  at::Tensor logits(const at::Tensor& hidden) const {
    return at::matmul(hidden, model_->embedder->weight.t());
  }

  static GemmaConfig long_config() {
    auto config = tiny_config(GetParam());
    config.max_position_embeddings = 200;
    return config;
  }

  GemmaConfig config_ = long_config();
  GemmaForCausalLM model_{config_};
  std::vector<int64_t> ids_;
};
INSTANTIATE_TEST_SUITE_P(All,
                         ModelRunnerTest,
                         ::testing::ValuesIn(kArchitectures),
                         architecture_name);

TEST_P(ModelRunnerTest, HasTheLogitsOfAModelInFloat64) {
  const auto want = testing::oracle::logits(testing::oracle::weights_of(*model_), config_,
                                            at::tensor(ids_).unsqueeze(0))[0];
  auto got = logits(at_once());
  if (config_.final_logit_softcapping) {
    got = at::tanh(got / *config_.final_logit_softcapping) * *config_.final_logit_softcapping;
  }
  EXPECT_TRUE(near_to(got, want, 1e-4));
}

TEST_P(ModelRunnerTest, APromptHasTheSameBitsInChunksOfAnySize) {
  const auto want = at_once();
  for (const int64_t chunk : {1, 2, 7, 32}) {
    ModelRunner runner(model_, {.chunk = chunk});
    auto sequence = runner.make_sequence();
    EXPECT_TRUE(at::equal(runner.extend(sequence, ids_), want)) << "chunks of " << chunk;
    EXPECT_EQ(sequence.length(), kLength);
  }
}

TEST_P(ModelRunnerTest, DecodesWhatItPrefills) {
  const auto want = at_once();
  ModelRunner runner(model_);
  auto sequence = runner.make_sequence();
  for (int64_t i = 0; i < kLength; ++i) {
    const ModelRunner::Next next{&sequence, ids_[i]};
    EXPECT_TRUE(near_to(runner.decode({&next, 1})[0], want[i], 1e-5)) << "token " << i;
  }
}

TEST_P(ModelRunnerTest, DecodesTheSameWithExactNumerics) {
  const auto want = at_once();
  model_->set_numerics(Numerics::kExact);
  ModelRunner runner(model_, {.chunk = 8});
  auto sequence = runner.make_sequence();
  EXPECT_TRUE(near_to(runner.extend(sequence, ids_), want, 1e-5));
}

// Sequences that join late and leave early, prompts that go together, more rows than gemv takes.
TEST_P(ModelRunnerTest, ATextOfABatchHasTheBitsThatItHasAlone) {
  std::vector<testing::BatchText> texts;
  for (size_t i = 0; i < 13; ++i) {
    texts.push_back({random_ids(10 + 2 * static_cast<int64_t>(i), config_), 3 + i, i / 3});
  }
  testing::expect_bits_of_texts_alone(model_, texts);
}

// Of right ones, and of wrong ones, which the next pass writes over. Past blocks and the window.
TEST_P(ModelRunnerTest, GuessesHaveTheBitsThatTokensHaveOneByOne) {
  const auto ids = random_ids(150, config_);
  const auto other = random_ids(150, config_);
  const auto want = hidden_states_alone(model_, ids, 10);
  const auto beside = hidden_states_alone(model_, other, 20);
  ModelRunner runner(model_, {.max_batch = 2});
  auto first = runner.make_sequence();
  auto second = runner.make_sequence();
  const ModelRunner::Feed feeds[] = {{&first, std::span(ids).first(10)},
                                     {&second, std::span(other).first(20)}};
  runner.prompt(feeds);
  size_t at = 10, beside_at = 20;
  for (int64_t right = 0; at < 140; right = (right + 1) % 6) {
    std::vector<int64_t> guess(ids.begin() + static_cast<int64_t>(at) + 1,
                               ids.begin() + static_cast<int64_t>(at) + 6);
    for (auto i = static_cast<size_t>(right); i < guess.size(); ++i) guess[i] += 1;
    std::vector<int64_t> tokens{ids[at]};
    tokens.insert(tokens.end(), guess.begin(), guess.end());
    const ModelRunner::Feed tries[] = {{&second, std::span(other).subspan(beside_at, 1)},
                                       {&first, tokens}};
    const auto hidden = runner.try_out(tries);
    ASSERT_EQ(hidden.size(0), 7);
    EXPECT_TRUE(at::equal(hidden[0], beside[beside_at - 19])) << "beside, token " << beside_at;
    for (int64_t i = 0; i <= right; ++i) {  // The token, and those of the guess that are right.
      EXPECT_TRUE(at::equal(hidden[i + 1], want[at - 9 + static_cast<size_t>(i)]))
          << "token " << at << " + " << i;
    }
    EXPECT_EQ(first.length(), static_cast<int64_t>(at));
    ModelRunner::accept(second, 1);
    ModelRunner::accept(first, 1);
    ModelRunner::accept(first, right);
    at += static_cast<size_t>(right) + 1;
    EXPECT_EQ(first.length(), static_cast<int64_t>(at));
    ++beside_at;
  }
}

// Past a block, and past the window.
TEST_P(ModelRunnerTest, AForkGoesOnAsItsOriginWould) {
  const auto ids = random_ids(90, config_);
  const auto want = hidden_states_alone(model_, ids, 70);
  ModelRunner runner(model_, {.max_batch = 3});
  auto first = runner.make_sequence();
  const ModelRunner::Feed feed{&first, std::span(ids).first(70)};
  runner.prompt({&feed, 1});
  auto second = first.fork();
  for (size_t i = 70; i < 90; ++i) {
    const ModelRunner::Next other{&second, 5};
    runner.decode({&other, 1});
    const ModelRunner::Next next{&first, ids[i]};
    EXPECT_TRUE(at::equal(runner.decode({&next, 1})[0], want[i - 69]));
  }
}

TEST_P(ModelRunnerTest, ATruncatedSequenceGoesOnAsIfItHadNotBeenLonger) {
  const auto want = hidden_states_alone(model_, ids_, 30);
  ModelRunner runner(model_);
  auto sequence = runner.make_sequence();
  const ModelRunner::Feed feed{&sequence, std::span(ids_).first(30)};
  runner.prompt({&feed, 1});
  for (int64_t i = 0; i < 4; ++i) {
    const ModelRunner::Next other{&sequence, 7};
    runner.decode({&other, 1});
  }
  ASSERT_TRUE(sequence.can_truncate(30));
  sequence.truncate(30);
  for (size_t i = 30; i < ids_.size(); ++i) {
    const ModelRunner::Next next{&sequence, ids_[i]};
    EXPECT_TRUE(at::equal(runner.decode({&next, 1})[0], want[i - 29]));
  }
  EXPECT_THROW(sequence.truncate(kLength + 1), std::invalid_argument);
}

TEST_P(ModelRunnerTest, EndedSequencesLeaveTheirBlocks) {
  ModelRunner runner(model_, {.max_batch = 2});
  const auto free_blocks = [&] {
    int64_t count = 0;
    for (const auto& kind : runner.store()->kinds()) count += kind.pool.free();
    return count;
  };
  const auto all = free_blocks();
  {
    auto sequence = runner.make_sequence();
    runner.extend(sequence, ids_);
    const auto fork = sequence.fork();
    auto moved = std::move(sequence);
    sequence = runner.make_sequence();
    moved = runner.make_sequence();
    EXPECT_LT(free_blocks(), all);
  }
  EXPECT_EQ(free_blocks(), all);
}

TEST_P(ModelRunnerTest, SaysThatMemoryIsInUse) {
  ModelRunner runner(model_, {.positions = 60});
  auto first = runner.make_sequence();
  runner.extend(first, ids_);
  auto second = runner.make_sequence();
  auto third = first.fork();
  const auto before = third.length();
  const ModelRunner::Feed feed{&second, std::span(ids_)};
  EXPECT_TRUE(contains(message_of<OutOfMemory>([&] { runner.prompt({&feed, 1}); }),
                       "the memory for keys and values"));
  const ModelRunner::Next next{&third, 5};
  EXPECT_THROW(runner.decode({&next, 1}), OutOfMemory);
  EXPECT_EQ(third.length(), before);
  EXPECT_EQ(second.length(), 0);
}

TEST_P(ModelRunnerTest, GivesTheSameBitsForAnyNumberOfThreads) {
  const auto threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = at_once();
  at::set_num_threads(3);
  const auto three = at_once();
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one, three));
}

TEST_P(ModelRunnerTest, KeepsBFloat16KeysOnRequest) {
  ModelRunner wide(model_);
  ModelRunner narrow(model_, {.kv_dtype = torch::kBFloat16});
  auto wide_sequence = wide.make_sequence();
  auto narrow_sequence = narrow.make_sequence();
  const auto want = wide.extend(wide_sequence, ids_);
  const auto got = narrow.extend(narrow_sequence, ids_);
  EXPECT_TRUE(near_to(got, want, 0.05));
  EXPECT_FALSE(at::equal(got, want));
  EXPECT_EQ(2 * narrow_sequence.bytes(), wide_sequence.bytes());
}

TEST_P(ModelRunnerTest, RefusesMoreTokensThanTheModelHasPositionsFor) {
  ModelRunner runner(model_);
  auto sequence = runner.make_sequence();
  const std::vector<int64_t> many(config_.max_position_embeddings + 1, 5);
  const auto message = message_of<std::invalid_argument>([&] { runner.extend(sequence, many); });
  EXPECT_TRUE(contains(message, "exceed max_position_embeddings"));
  EXPECT_EQ(sequence.length(), 0);
}

TEST_P(ModelRunnerTest, RefusesASequenceTwiceInAStep) {
  ModelRunner runner(model_);
  auto sequence = runner.make_sequence();
  const std::vector<ModelRunner::Feed> feeds{{&sequence, ids_}, {&sequence, ids_}};
  const auto message = message_of<std::invalid_argument>([&] { runner.prompt(feeds); });
  EXPECT_TRUE(contains(message, "a sequence comes twice"));
}

// A block or two more than the window, however long the text.
TEST(ModelRunner, LocalLayersKeepNoMoreThanTheirWindow) {
  auto config = tiny_config(Architecture::kGemma3);
  config.attn_types = {AttentionType::kLocalSliding};
  config.max_position_embeddings = 4096;
  GemmaForCausalLM model(config);
  randomize(*model, /*seed=*/1);
  model->set_numerics(Numerics::kFast);
  ModelRunner runner(model, {.chunk = 4});
  auto sequence = runner.make_sequence();
  runner.extend(sequence, random_ids(2300, config));
  ASSERT_EQ(runner.store()->kinds().size(), 1U);
  const auto blocks = (*config.sliding_window_size + 63) / 64 + 1;
  EXPECT_LE(sequence.bytes(), blocks * runner.store()->kinds()[0].block_bytes);
  EXPECT_LE(runner.store()->bytes(), (blocks + 3) * runner.store()->kinds()[0].block_bytes);
  // All that the window sees of 2300 tokens is there for one more, but not for one of the first.
  EXPECT_TRUE(sequence.can_truncate(2300));
  EXPECT_FALSE(sequence.can_truncate(1000));
  EXPECT_THROW(sequence.truncate(1000), std::invalid_argument);
}

TEST(ModelRunner, HasNoMoreMemoryThanItMay) {
  const GemmaForCausalLM model(tiny_config(Architecture::kGemma3));
  for (const int64_t bytes : {1 << 20, 1 << 22}) {
    const ModelRunner runner(model, {.kv_memory = bytes, .max_batch = 100});
    EXPECT_LE(runner.store()->bytes(), bytes);
    EXPECT_GT(runner.store()->bytes(), bytes / 2);
  }
  EXPECT_TRUE(
      contains(message_of<std::invalid_argument>([&] { ModelRunner(model, {.kv_memory = 1000}); }),
               "kv_memory is 1000 bytes, but"));
}

TEST(ModelRunner, RefusesACacheThatCannotBe) {
  const GemmaForCausalLM model(tiny_config(Architecture::kGemma3));
  EXPECT_TRUE(contains(
      message_of<std::invalid_argument>([&] { ModelRunner(model, {.kv_dtype = torch::kHalf}); }),
      "must be float32 or bfloat16"));
  EXPECT_TRUE(contains(message_of<std::invalid_argument>([&] { ModelRunner(model, {.chunk = 0}); }),
                       "chunk is 0, but must be 1 or more tokens"));
}

}  // namespace
}  // namespace gemma
