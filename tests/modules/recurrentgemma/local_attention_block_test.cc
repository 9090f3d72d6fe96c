#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/modules/recurrentgemma/local_attention_block.h>

namespace gemma::recurrentgemma {
namespace {

using testing::message_of;
using testing::random_tensor;
using testing::tensors_close;
using testing::tensors_equal;

constexpr int64_t kHidden = 24, kQueryHeads = 2, kSeenBefore = 3, kLength = 9;
constexpr int64_t kHeadDim = kHidden / kQueryHeads;

LocalAttentionBlock make_block() {
  LocalAttentionBlock block(kHidden, kQueryHeads, kSeenBefore);
  testing::randomize(*block, 3);
  return block;
}

// The pairs (i, i + D / 4) of the first half of a head, turned by position * 10000^(-4i / D).
at::Tensor turned(const at::Tensor& head, int64_t position) {
  auto out = head.clone();
  for (int64_t i = 0; i < kHeadDim / 4; ++i) {
    const auto j = i + kHeadDim / 4;
    const auto angle =
        static_cast<double>(position) *
        std::pow(10'000.0, -4.0 * static_cast<double>(i) / static_cast<double>(kHeadDim));
    out[i] = head[i] * std::cos(angle) - head[j] * std::sin(angle);
    out[j] = head[j] * std::cos(angle) + head[i] * std::sin(angle);
  }
  return out;
}

// Of one text x [T, E] at positions 0, 1, …, head by head and token by token in float64.
at::Tensor by_tokens(const LocalAttentionBlock& block, const at::Tensor& x32) {
  const auto x = x32.to(at::kDouble);
  const auto project = [&](const Linear& linear) {
    return at::matmul(x, linear->weight.to(at::kDouble).t());
  };
  const auto q = project(block->proj_q), k = project(block->proj_k), v = project(block->proj_v);
  std::vector<at::Tensor> rows;
  for (int64_t t = 0; t < x.size(0); ++t) {
    std::vector<at::Tensor> heads;
    for (int64_t head = 0; head < kQueryHeads; ++head) {
      const auto query = turned(q[t].narrow(0, head * kHeadDim, kHeadDim), t);
      const auto first = std::max<int64_t>(0, t - kSeenBefore);
      std::vector<at::Tensor> scores;
      for (int64_t s = first; s <= t; ++s) scores.push_back(at::dot(query, turned(k[s], s)));
      const auto probs = at::softmax(at::stack(scores) / std::sqrt(double{kHeadDim}), /*dim=*/0);
      heads.push_back(at::matmul(probs, v.narrow(0, first, t - first + 1)));
    }
    rows.push_back(at::cat(heads));
  }
  return at::matmul(at::stack(rows), block->proj_final->weight.to(at::kDouble).t()) +
         block->proj_final->bias.to(at::kDouble);
}

TEST(LocalAttentionBlock, IsAttentionToAWindowWithHalfOfEachHeadRotated) {
  auto block = make_block();
  const auto x = random_tensor({1, kLength, kHidden}, 5);
  const auto y = block->forward(x, at::arange(kLength).view({1, -1})).first;
  EXPECT_TRUE(tensors_close(y[0], by_tokens(block, x[0])));
}

TEST(LocalAttentionBlock, TokenByTokenIsTheWhole) {
  auto block = make_block();
  const auto x = random_tensor({2, kLength, kHidden}, 5);
  const auto positions = at::arange(kLength).expand({2, kLength});
  const auto whole = block->forward(x, positions).first;
  auto cache = LocalAttentionBlockImpl::init_cache(2, kSeenBefore, kHeadDim, at::kFloat);
  for (int64_t t = 0; t < kLength; ++t) {
    const auto [y, next] = block->forward(x.narrow(1, t, 1), positions.narrow(1, t, 1), cache);
    EXPECT_TRUE(tensors_close(y, whole.narrow(1, t, 1))) << "token " << t;
    cache = *next;
  }
}

TEST(LocalAttentionBlock, PaddingOnTheLeftChangesNothing) {
  auto block = make_block();
  const auto x = random_tensor({1, kLength, kHidden}, 5);
  const auto positions = (at::arange(kLength) - 4).clamp(/*min=*/-1).view({1, -1});
  const auto padded = block->forward(x, positions).first.narrow(1, 4, kLength - 4);
  const auto alone =
      block->forward(x.narrow(1, 4, kLength - 4), positions.narrow(1, 4, kLength - 4)).first;
  EXPECT_TRUE(tensors_close(padded, alone));
}

TEST(LocalAttentionBlock, HeadsThatDoNotDivideTheWidthAreRefused) {
  EXPECT_EQ(message_of<std::invalid_argument>([] { LocalAttentionBlock(10, 3, 4); }),
            "LocalAttentionBlock: num_heads is 3, but must divide the width, 10");
}

}  // namespace
}  // namespace gemma::recurrentgemma
