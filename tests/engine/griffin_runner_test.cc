#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/runner_texts.h"
#include "tests/testing.h"

#include <gemma/engine/model_runner.h>
#include <gemma/models/griffin.h>

namespace gemma::recurrentgemma {
namespace {

using testing::contains;
using testing::hidden_states_alone;
using testing::message_of;
using testing::near_to;

constexpr auto kR = TemporalBlockType::kRecurrent;
constexpr auto kA = TemporalBlockType::kAttention;
constexpr int64_t kLength = 150;  // Far past the window, and past two blocks of positions.

// Blocks of gates, heads and vectors of different sizes, a window that ends inside a block.
GriffinConfig tiny_config() {
  return {.vocab_size = 97,
          .width = 72,
          .mlp_expanded_width = 52,
          .num_heads = 3,
          .block_types = {kR, kR, kA, kR, kA},
          .embeddings_scale_by_sqrt_dim = true,
          .attention_window_size = 21,
          .logits_soft_cap = 3.3,
          .lru_width = 60};
}

std::vector<int64_t> random_ids(int64_t count) {
  const auto ids = at::randint(tiny_config().vocab_size, {count}, at::kLong);
  return {ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + count};
}

class GriffinRunnerTest : public ::testing::Test {
 protected:
  GriffinRunnerTest() {
    at::manual_seed(1);
    testing::randomize(*model_, /*seed=*/1);
    ids_ = random_ids(kLength);
  }

  // Capped logits of all tokens, as the reference has them.
  at::Tensor of_reference() {
    const auto tokens = at::tensor(ids_).unsqueeze(0);
    return (*model_->forward(tokens, at::arange(kLength).unsqueeze(0)).first)[0];
  }

  // Of hidden states on an engine.
  at::Tensor logits(const at::Tensor& hidden) const {
    const auto logits = model_->logits(hidden, /*buffer=*/{});
    return at::tanh(logits / 3.3) * 3.3;
  }

  // Hidden states of all tokens, fed at once.
  at::Tensor at_once() {
    ModelRunner runner(model_);
    auto sequence = runner.make_sequence();
    return runner.extend(sequence, ids_);
  }

  Griffin model_{tiny_config()};
  std::vector<int64_t> ids_;
};

TEST_F(GriffinRunnerTest, HasTheLogitsOfTheReference) {
  const auto want = of_reference();
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    model_->set_numerics(numerics);
    EXPECT_TRUE(near_to(logits(at_once()), want, 1e-4)) << to_string(numerics);
  }
}

TEST_F(GriffinRunnerTest, DecodesWhatItPrefills) {
  const auto want = of_reference();
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    model_->set_numerics(numerics);
    const auto got = logits(at::stack(hidden_states_alone(model_, ids_, 30)));
    EXPECT_TRUE(near_to(got, want.slice(0, 29), 1e-4)) << to_string(numerics);
  }
}

TEST_F(GriffinRunnerTest, APromptHasTheSameBitsInChunksOfAnySize) {
  model_->set_numerics(Numerics::kFast);
  const auto want = at_once();
  for (const int64_t chunk : {1, 2, 7, 64}) {
    ModelRunner runner(model_, {.chunk = chunk});
    auto sequence = runner.make_sequence();
    EXPECT_TRUE(at::equal(runner.extend(sequence, ids_), want)) << "chunks of " << chunk;
  }
}

TEST_F(GriffinRunnerTest, GivesTheSameBitsForAnyNumberOfThreads) {
  model_->set_numerics(Numerics::kFast);
  const auto threads = at::get_num_threads();
  std::map<int, std::vector<at::Tensor>> results;
  for (const int count : {1, 2, 3}) {
    at::set_num_threads(count);
    results[count] = {at_once(), at::stack(hidden_states_alone(model_, ids_, 100))};
  }
  at::set_num_threads(threads);
  for (const size_t i : {0, 1}) {
    EXPECT_TRUE(at::equal(results[1][i], results[2][i]));
    EXPECT_TRUE(at::equal(results[1][i], results[3][i]));
  }
}

// Sequences that join late, prompts that go together, more rows than gemv takes.
TEST_F(GriffinRunnerTest, ATextOfABatchHasTheBitsThatItHasAlone) {
  model_->set_numerics(Numerics::kFast);
  std::vector<testing::BatchText> texts;
  for (size_t i = 0; i < 11; ++i) {
    // Texts 0 to 5 begin together, the others after two steps.
    texts.push_back({random_ids(12 + static_cast<int64_t>(i)), 2 + i, i < 6 ? 0U : 2U});
  }
  testing::expect_bits_of_texts_alone(model_, texts);
}

TEST_F(GriffinRunnerTest, AForkGoesOnAsItsOriginWould) {
  model_->set_numerics(Numerics::kFast);
  const auto want = hidden_states_alone(model_, ids_, 70);
  ModelRunner runner(model_, {.max_batch = 2});
  auto first = runner.make_sequence();
  const ModelRunner::Feed feed{&first, std::span(ids_).first(70)};
  runner.prompt({&feed, 1});
  auto second = first.fork();
  EXPECT_EQ(second.slot(), first.slot());
  for (size_t i = 70; i < 90; ++i) {
    const ModelRunner::Next other{&second, 5};
    runner.decode({&other, 1});
    const ModelRunner::Next next{&first, ids_[i]};
    EXPECT_TRUE(at::equal(runner.decode({&next, 1})[0], want[i - 69])) << "token " << i;
  }
}

TEST_F(GriffinRunnerTest, APassThatFailsLeavesTheStateAsItWas) {
  model_->set_numerics(Numerics::kFast);
  const auto want = hidden_states_alone(model_, ids_, 70);
  int64_t fail_after = -1;
  ModelRunner runner(model_, {.on_layer = [&](int64_t done, int64_t /*total*/) {
                       if (done == fail_after) throw std::runtime_error("stop");
                     }});
  auto sequence = runner.make_sequence();
  const ModelRunner::Feed feed{&sequence, std::span(ids_).first(70)};
  runner.prompt({&feed, 1});
  for (fail_after = 1; fail_after <= 5; ++fail_after) {
    const ModelRunner::Next other{&sequence, 5};
    EXPECT_THROW(runner.decode({&other, 1}), std::runtime_error);
  }
  for (size_t i = 70; i < 75; ++i) {
    const ModelRunner::Next next{&sequence, ids_[i]};
    EXPECT_TRUE(at::equal(runner.decode({&next, 1})[0], want[i - 69])) << "token " << i;
  }
}

TEST_F(GriffinRunnerTest, ASequenceIsForgottenWholeOrNotAtAll) {
  ModelRunner runner(model_);
  auto sequence = runner.make_sequence();
  runner.extend(sequence, std::span(ids_).first(20));
  EXPECT_TRUE(sequence.can_truncate(20));
  EXPECT_FALSE(sequence.can_truncate(19));
  EXPECT_TRUE(contains(message_of<std::invalid_argument>([&] { sequence.truncate(19); }),
                       "recurrent layers have the state after the last alone"));
  const auto free = runner.store()->slots().pool.free();
  sequence.truncate(0);
  EXPECT_FALSE(sequence.slot());
  EXPECT_EQ(runner.store()->slots().pool.free(), free + 1);
  model_->set_numerics(Numerics::kFast);
  EXPECT_TRUE(at::equal(runner.extend(sequence, ids_), at_once()));
}

TEST_F(GriffinRunnerTest, EndedSequencesLeaveTheirSlots) {
  ModelRunner runner(model_);
  const auto all = runner.store()->bytes_free();
  EXPECT_EQ(all, runner.store()->bytes());
  {
    auto sequence = runner.make_sequence();
    runner.extend(sequence, ids_);
    auto fork = sequence.fork();
    const ModelRunner::Next next{&fork, 5};
    runner.decode({&next, 1});
    sequence = std::move(fork);
    EXPECT_LT(runner.store()->bytes_free(), all);
  }
  EXPECT_EQ(runner.store()->bytes_free(), all);
}

// Three recurrent layers with a state and three inputs each, as float32.
TEST_F(GriffinRunnerTest, AStateHasTheSameSizeHoweverLongTheTextIs) {
  ModelRunner runner(model_, {.chunk = 16});
  auto sequence = runner.make_sequence();
  runner.extend(sequence, std::span(ids_).first(60));
  EXPECT_EQ(runner.store()->slots().slot_bytes, 3 * 4 * 60 * 4);
  const auto bytes = sequence.bytes();
  runner.extend(sequence, random_ids(3000));
  EXPECT_LE(sequence.bytes(), bytes + 2 * runner.store()->kinds()[0].block_bytes);
}

TEST_F(GriffinRunnerTest, SaysThatSlotsAreInUse) {
  ModelRunner runner(model_);
  std::vector<Sequence> sequences;
  const auto begin = [&] {
    sequences.push_back(runner.make_sequence());
    runner.extend(sequences.back(), std::span(ids_).first(3));
  };
  EXPECT_TRUE(contains(message_of<OutOfMemory>([&] {
                         for (;;) begin();
                       }),
                       "is in use"));
  EXPECT_EQ(sequences.back().length(), 0);
}

TEST_F(GriffinRunnerTest, GoesOnWithExactNumericsAsBefore) {
  const auto want = of_reference();
  model_->set_numerics(Numerics::kFast);
  at_once();
  model_->set_numerics(Numerics::kExact);
  EXPECT_TRUE(at::equal(of_reference(), want));
}

TEST_F(GriffinRunnerTest, TakesOtherWeightsWithFastNumerics) {
  Griffin other(tiny_config());
  testing::randomize(*other, /*seed=*/2);
  model_->set_numerics(Numerics::kFast);
  load_state_dict(*model_, state_dict(*other), /*strict=*/true, /*assign=*/true);
  const auto got = logits(at_once());
  model_->set_numerics(Numerics::kExact);
  EXPECT_TRUE(near_to(got, of_reference(), 1e-4));
}

}  // namespace
}  // namespace gemma::recurrentgemma
