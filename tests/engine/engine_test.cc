#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/engine/engine.h>

namespace gemma {
namespace {

using testing::architecture_name;
using testing::contains;
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

class EngineTest : public ::testing::TestWithParam<Architecture> {
 protected:
  EngineTest() {
    at::manual_seed(1);
    randomize(*model_, /*seed=*/1);
    model_->set_numerics(Numerics::kFast);
    ids_ = random_ids(kLength, config_);
  }

  // Hidden states of all tokens, fed at once.
  at::Tensor at_once() {
    Engine engine(model_);
    auto sequence = engine.make_sequence();
    return engine.extend(sequence, ids_);
  }

  at::Tensor logits(const at::Tensor& hidden) const {
    return at::matmul(hidden, model_->embedder->weight.t());
  }

  GemmaConfig config_ = tiny_config(GetParam());
  GemmaForCausalLM model_{config_};
  std::vector<int64_t> ids_;
};
INSTANTIATE_TEST_SUITE_P(All, EngineTest, ::testing::ValuesIn(kArchitectures), architecture_name);

TEST_P(EngineTest, HasTheLogitsOfAModelInFloat64) {
  const auto want = testing::oracle::logits(testing::oracle::weights_of(*model_), config_,
                                            at::tensor(ids_).unsqueeze(0))[0];
  auto got = logits(at_once());
  if (config_.final_logit_softcapping) {
    got = at::tanh(got / *config_.final_logit_softcapping) * *config_.final_logit_softcapping;
  }
  EXPECT_TRUE(near_to(got, want, 1e-4));
}

TEST_P(EngineTest, GivesTheSameInChunksOfAnySize) {
  const auto want = at_once();
  for (const int64_t chunk : {1, 2, 7, 32}) {
    Engine engine(model_, {.chunk = chunk});
    auto sequence = engine.make_sequence();
    EXPECT_TRUE(near_to(engine.extend(sequence, ids_), want, 1e-5)) << "chunks of " << chunk;
    EXPECT_EQ(sequence.length(), kLength);
  }
}

TEST_P(EngineTest, DecodesWhatItPrefills) {
  const auto want = at_once();
  Engine engine(model_);
  auto sequence = engine.make_sequence();
  for (int64_t i = 0; i < kLength; ++i) {
    const Engine::Feed feed{&sequence, {&ids_[i], 1}};
    EXPECT_TRUE(near_to(engine.step({&feed, 1})[0], want[i], 1e-5)) << "token " << i;
  }
}

TEST_P(EngineTest, DecodesTheSameWithExactNumerics) {
  const auto want = at_once();
  model_->set_numerics(Numerics::kExact);
  Engine engine(model_, {.chunk = 8});
  auto sequence = engine.make_sequence();
  EXPECT_TRUE(near_to(engine.extend(sequence, ids_), want, 1e-5));
}

// Sequences that join late, with pieces of other lengths, and leave early.
TEST_P(EngineTest, SequencesOfABatchAreAsIfAlone) {
  const auto want = at_once();
  Engine engine(model_, {.chunk = 16});
  auto first = engine.make_sequence();
  auto second = engine.make_sequence();
  const std::span ids(ids_);
  const auto step = [&](std::vector<Engine::Feed> feeds) { return engine.step(feeds); };

  EXPECT_TRUE(near_to(step({{&first, ids.first(20)}})[0], want[19], 1e-5));
  auto both = step({{&first, ids.subspan(20, 1)}, {&second, ids.first(30)}});
  EXPECT_TRUE(near_to(both[0], want[20], 1e-5));
  EXPECT_TRUE(near_to(both[1], want[29], 1e-5));
  both = step({{&second, ids.subspan(30, 1)}, {&first, ids.subspan(21, 24)}});
  EXPECT_TRUE(near_to(both[0], want[30], 1e-5));
  EXPECT_TRUE(near_to(both[1], want[44], 1e-5));
}

TEST_P(EngineTest, GivesTheSameBitsForAnyNumberOfThreads) {
  const auto threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = at_once();
  at::set_num_threads(3);
  const auto three = at_once();
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one, three));
}

TEST_P(EngineTest, KeepsBFloat16KeysOnRequest) {
  Engine wide(model_);
  Engine narrow(model_, {.kv_dtype = torch::kBFloat16});
  auto wide_sequence = wide.make_sequence();
  auto narrow_sequence = narrow.make_sequence();
  const auto want = wide.extend(wide_sequence, ids_);
  const auto got = narrow.extend(narrow_sequence, ids_);
  EXPECT_TRUE(near_to(got, want, 0.05));
  EXPECT_FALSE(at::equal(got, want));
  EXPECT_EQ(2 * narrow_sequence.bytes(), wide_sequence.bytes());
}

TEST_P(EngineTest, RefusesMoreTokensThanTheModelHasPositionsFor) {
  Engine engine(model_);
  auto sequence = engine.make_sequence();
  const std::vector<int64_t> many(config_.max_position_embeddings + 1, 5);
  const auto message = message_of<std::invalid_argument>([&] { engine.extend(sequence, many); });
  EXPECT_TRUE(contains(message, "exceed max_position_embeddings"));
  EXPECT_EQ(sequence.length(), 0);
}

TEST_P(EngineTest, RefusesASequenceTwiceInAStep) {
  Engine engine(model_);
  auto sequence = engine.make_sequence();
  const std::vector<Engine::Feed> feeds{{&sequence, ids_}, {&sequence, ids_}};
  const auto message = message_of<std::invalid_argument>([&] { engine.step(feeds); });
  EXPECT_TRUE(contains(message, "a sequence comes twice"));
}

// A ring of the window and a chunk, however long the text.
TEST(Engine, LocalLayersKeepNoMoreThanTheirWindow) {
  auto config = tiny_config(Architecture::kGemma3);
  config.attn_types = {AttentionType::kLocalSliding};
  config.max_position_embeddings = 4096;
  GemmaForCausalLM model(config);
  randomize(*model, /*seed=*/1);
  model->set_numerics(Numerics::kFast);
  Engine engine(model, {.chunk = 4});
  auto sequence = engine.make_sequence();
  engine.extend(sequence, random_ids(300, config));
  const auto bytes = sequence.bytes();
  engine.extend(sequence, random_ids(2000, config));
  EXPECT_EQ(sequence.bytes(), bytes);
  const auto width = (config.head_dim + 7) / 8 * 8;
  EXPECT_EQ(bytes, config.num_hidden_layers * 2 * config.num_key_value_heads *
                       (*config.sliding_window_size + 4) * width * 4);
}

TEST(Engine, RefusesACacheThatCannotBe) {
  const GemmaForCausalLM model(tiny_config(Architecture::kGemma3));
  EXPECT_TRUE(contains(
      message_of<std::invalid_argument>([&] { Engine(model, {.kv_dtype = torch::kHalf}); }),
      "must be float32 or bfloat16"));
  EXPECT_TRUE(contains(message_of<std::invalid_argument>([&] { Engine(model, {.chunk = 0}); }),
                       "chunk is 0, but must be 1 or more tokens"));
}

}  // namespace
}  // namespace gemma
