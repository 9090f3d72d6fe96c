#include <stdexcept>
#include <tuple>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/generate/log_probs.h>

namespace gemma {
namespace {

using testing::architecture_name;
using testing::contains;
using testing::kArchitectures;
using testing::message_of;
using testing::randomize;
using testing::tiny_config;

constexpr int64_t kBos = 2;
constexpr int64_t kWindow = 14;
// Two whole windows of kWindow - 1 tokens, and a part of one.
constexpr int64_t kLength = 31;

class LogProbsTest : public ::testing::TestWithParam<Architecture> {
 protected:
  LogProbsTest() {
    at::manual_seed(1);
    randomize(*model_, /*seed=*/1);
    const auto ids = at::randint(config_.vocab_size, {kLength}, at::kLong);
    tokens_.assign(ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + kLength);
  }

  // All rows; the tokens that came with them have to be the text's.
  at::Tensor rows(const LogProbsOptions& options) {
    std::vector<at::Tensor> parts;
    std::vector<int64_t> seen;
    log_probs(model_, kBos, tokens_, options,
              [&](std::span<const int64_t> tokens, const at::Tensor& values) {
                EXPECT_LE(values.size(0), options.chunk);
                EXPECT_EQ(values.size(0), std::ssize(tokens));
                seen.insert(seen.end(), tokens.begin(), tokens.end());
                parts.push_back(values);
              });
    EXPECT_EQ(seen, tokens_);
    return at::cat(parts);
  }

  // The same in float64, each window by itself.
  at::Tensor want() const {
    const auto weights = testing::oracle::weights_of(*model_);
    std::vector<at::Tensor> parts;
    for (int64_t begin = 0; begin < kLength; begin += kWindow - 1) {
      const auto end = std::min(begin + kWindow - 1, kLength);
      std::vector<int64_t> ids{kBos};
      ids.insert(ids.end(), tokens_.begin() + begin, tokens_.begin() + end - 1);
      parts.push_back(
          testing::oracle::logits(weights, config_, at::tensor(ids).unsqueeze(0))[0].log_softmax(
              -1));
    }
    return at::cat(parts);
  }

  void expect_close(const at::Tensor& got) const {
    const auto error = (got.to(at::kDouble) - want()).abs().max().item<double>();
    EXPECT_LT(error, 1e-4);
  }

  GemmaConfig config_ = tiny_config(GetParam());
  GemmaForCausalLM model_{config_};
  std::vector<int64_t> tokens_;
};
INSTANTIATE_TEST_SUITE_P(All, LogProbsTest, ::testing::ValuesIn(kArchitectures), architecture_name);

TEST_P(LogProbsTest, AreThoseOfAModelInFloat64WithFastNumerics) {
  model_->set_numerics(Numerics::kFast);
  expect_close(rows({.window = kWindow}));
}

TEST_P(LogProbsTest, AreThoseOfAModelInFloat64WithExactNumerics) {
  expect_close(rows({.window = kWindow}));
}

TEST_P(LogProbsTest, AreTheSameInChunksOfAnySize) {
  model_->set_numerics(Numerics::kFast);
  for (const int64_t chunk : {1, 5, 13}) expect_close(rows({.window = kWindow, .chunk = chunk}));
}

TEST_P(LogProbsTest, RefuseWindowsAndChunksThatCannotBe) {
  EXPECT_TRUE(contains(message_of<std::invalid_argument>([&] { rows({.window = 1}); }),
                       "window is 1, but must be 2 to max_position_embeddings"));
  EXPECT_TRUE(contains(message_of<std::invalid_argument>(
                           [&] { rows({.window = config_.max_position_embeddings + 1}); }),
                       "must be 2 to max_position_embeddings"));
  EXPECT_TRUE(contains(message_of<std::invalid_argument>([&] { rows({.window = 4, .chunk = 0}); }),
                       "chunk is 0, but must be 1"));
}

}  // namespace
}  // namespace gemma
