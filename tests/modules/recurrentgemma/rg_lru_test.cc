#include <cmath>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/modules/recurrentgemma/rg_lru.h>

namespace gemma::recurrentgemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::random_tensor;
using testing::tensors_close;
using testing::tensors_equal;

constexpr int64_t kWidth = 12, kHeads = 3;

RGLRU make_layer(at::ScalarType dtype = at::kFloat) {
  const DefaultDtypeGuard guard(dtype);
  RGLRU layer(kWidth, kHeads);
  testing::randomize(*layer, 3);
  return layer;
}

// Two documents in the first row; padding in the second.
at::Tensor two_rows() {
  return at::tensor({0, 1, 2, 0, 1, 2, 3, -1, -1, 0, 1, 2, 3, 4}, at::kLong).view({2, 7});
}

// The gates' logits, a block of features at a time.
at::Tensor gate(const BlockDiagonalLinear& linear, const at::Tensor& x) {
  std::vector<at::Tensor> blocks;
  const auto size = kWidth / kHeads;
  for (int64_t i = 0; i < kHeads; ++i) {
    const auto w = linear->w.to(at::kDouble)[i], b = linear->b.to(at::kDouble)[i];
    blocks.push_back(at::matmul(x.narrow(-1, i * size, size), w) + b);
  }
  return at::sigmoid(at::cat(blocks, /*dim=*/-1));
}

// The paper's equations (arXiv 2402.19427, 3 and 4), token by token in float64 -> (y, last h).
std::pair<at::Tensor, at::Tensor> by_the_paper(const RGLRU& layer,
                                               const at::Tensor& x32,
                                               const at::Tensor& positions) {
  const auto x = x32.to(at::kDouble);
  const auto decay = at::softplus(layer->a_param.to(at::kDouble));
  auto y = at::zeros_like(x);
  auto last = at::zeros({x.size(0), kWidth}, at::kDouble);
  for (int64_t row = 0; row < x.size(0); ++row) {
    auto h = at::zeros({kWidth}, at::kDouble);
    for (int64_t t = 0; t < x.size(1); ++t) {
      const auto token = x[row][t];
      const auto input = gate(layer->input_gate, token) * token;
      const auto a = at::exp(-8 * decay * gate(layer->a_gate, token));
      const bool begins = positions[row][t].item<int64_t>() == 0;
      h = begins ? input : a * h + at::sqrt(1 - a * a) * input;
      y[row][t] = h;
    }
    last[row] = h;
  }
  return {y, last};
}

TEST(RGLRU, IsTheRecurrenceOfThePaper) {
  auto layer = make_layer();
  const auto x = random_tensor({2, 7, kWidth}, 5);
  const auto [y, state] = layer->forward(x, two_rows());
  const auto [want_y, want_state] = by_the_paper(layer, x, two_rows());
  EXPECT_TRUE(tensors_close(y, want_y));
  EXPECT_TRUE(tensors_close(*state, want_state));
}

TEST(RGLRU, TokenByTokenIsTheWhole) {
  auto layer = make_layer();
  const auto x = random_tensor({2, 7, kWidth}, 5);
  const auto positions = two_rows();
  const auto [whole, last] = layer->forward(x, positions);
  std::optional<at::Tensor> state;
  for (int64_t t = 0; t < 7; ++t) {
    const auto [y, next] = layer->forward(x.narrow(1, t, 1), positions.narrow(1, t, 1), state);
    EXPECT_TRUE(tensors_close(y, whole.narrow(1, t, 1))) << "token " << t;
    state = next;
  }
  EXPECT_TRUE(tensors_close(*state, *last));
}

TEST(RGLRU, ADocumentIsAsIfItWereAlone) {
  auto layer = make_layer();
  const auto x = random_tensor({1, 7, kWidth}, 5);
  const auto positions = two_rows().narrow(0, 0, 1);
  const auto whole = layer->forward(x, positions).first;
  const auto alone = layer->forward(x.narrow(1, 3, 4), positions.narrow(1, 3, 4)).first;
  EXPECT_TRUE(tensors_close(whole.narrow(1, 3, 4), alone));
}

TEST(RGLRU, TheStateIsFloat32WhateverTheDtype) {
  auto layer = make_layer(at::kBFloat16);
  const auto x = random_tensor({2, 7, kWidth}, 5, at::kBFloat16);
  const auto [y, state] = layer->forward(x, two_rows());
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_EQ(state->scalar_type(), at::kFloat);
  EXPECT_TRUE(tensors_equal(RGLRUImpl::init_cache(2, kWidth), at::zeros({2, kWidth})));
}

TEST(RGLRU, TheStateIsReturnedOnlyWhenAskedFor) {
  const auto x = random_tensor({2, 7, kWidth}, 5);
  EXPECT_FALSE(make_layer()->forward(x, two_rows(), std::nullopt, /*return_cache=*/false).second);
}

TEST(RGLRU, PositionsOfAnotherShapeAreRefused) {
  const auto x = random_tensor({2, 6, kWidth}, 5);
  const auto message = message_of<c10::ValueError>([&] { make_layer()->forward(x, two_rows()); });
  EXPECT_TRUE(
      contains(message, "RGLRU: segment_pos must be [2, 6] as x is [2, 6, 12], got [2, 7]"));
}

}  // namespace
}  // namespace gemma::recurrentgemma
