#include <algorithm>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/modules/recurrentgemma/conv1d.h>

namespace gemma::recurrentgemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::random_tensor;
using testing::tensors_close;
using testing::tensors_equal;

constexpr int64_t kFeatures = 5, kTaps = 4, kTokens = 8;

Conv1D make_conv() {
  Conv1D layer(kFeatures, kTaps);
  testing::randomize(*layer, 3);
  return layer;
}

// Two documents in the first row; padding in the second.
at::Tensor conv_positions() {
  return at::tensor({0, 1, 2, 3, 4, 0, 1, 2, -1, -1, 0, 1, 2, 3, 4, 5}, at::kLong)
      .view({2, kTokens});
}

// Token by token and tap by tap, within the document that `positions` say.
at::Tensor by_taps(const Conv1D& layer, const at::Tensor& x, const at::Tensor& positions) {
  auto y = at::zeros_like(x, at::kDouble);
  for (int64_t row = 0; row < x.size(0); ++row) {
    for (int64_t t = 0; t < x.size(1); ++t) {
      auto sum = layer->b.to(at::kDouble);
      for (int64_t back = 0; back < kTaps && back <= t; ++back) {
        sum = sum + layer->w[kTaps - 1 - back].to(at::kDouble) * x[row][t - back].to(at::kDouble);
        if (positions[row][t - back].item<int64_t>() == 0) break;
      }
      y[row][t] = sum;
    }
  }
  return y;
}

TEST(Conv1D, LooksBackWithinItsDocument) {
  auto layer = make_conv();
  const auto x = random_tensor({2, kTokens, kFeatures}, 5);
  const auto want = by_taps(layer, x, conv_positions());
  EXPECT_TRUE(tensors_close(layer->forward(x.clone(), conv_positions()).first, want));
}

TEST(Conv1D, TokenByTokenIsTheWhole) {
  auto layer = make_conv();
  const auto x = random_tensor({2, kTokens, kFeatures}, 5);
  const auto positions = at::arange(kTokens).expand({2, kTokens});
  const auto whole = layer->forward(x.clone(), positions).first;
  auto cache = Conv1DImpl::init_cache(2, kFeatures, at::kFloat, kTaps);
  for (int64_t t = 0; t < kTokens; ++t) {
    const auto [y, next] = layer->forward(x.narrow(1, t, 1), positions.narrow(1, t, 1), cache);
    EXPECT_TRUE(tensors_close(y, whole.narrow(1, t, 1))) << "token " << t;
    cache = *next;
  }
  EXPECT_TRUE(tensors_equal(cache, x.narrow(1, kTokens - 3, 3)));
}

TEST(Conv1D, TheCacheOfAShortPromptBeginsWithZeros) {
  const auto x = random_tensor({1, 2, kFeatures}, 5);
  const auto cache = make_conv()->forward(x.clone(), at::arange(2).view({1, 2})).second;
  EXPECT_TRUE(tensors_equal(*cache, at::cat({at::zeros({1, 1, kFeatures}), x}, /*dim=*/1)));
}

TEST(Conv1D, InputsThatADocumentsBeginHidesBecomeZeroInTheInputItself) {
  auto x = random_tensor({1, kTokens, kFeatures}, 5);
  const auto before = x.clone();
  const auto cache = make_conv()->forward(x, conv_positions().narrow(0, 0, 1)).second;
  EXPECT_TRUE(tensors_equal(x.narrow(1, 2, 3), at::zeros({1, 3, kFeatures})));
  EXPECT_TRUE(tensors_equal(x.narrow(1, 0, 2), before.narrow(1, 0, 2)));
  EXPECT_TRUE(tensors_equal(x.narrow(1, 5, 3), before.narrow(1, 5, 3)));
  EXPECT_TRUE(tensors_equal(*cache, before.narrow(1, 5, 3)));
}

TEST(Conv1D, WhatDoesNotFitACacheIsRefused) {
  auto layer = make_conv();
  const auto cache = Conv1DImpl::init_cache(1, kFeatures, at::kFloat);
  const auto refusal = [&](int64_t tokens, const at::Tensor& state) {
    return message_of<c10::ValueError>(
        [&] { layer->forward(at::zeros({1, tokens, kFeatures}), at::zeros({1, tokens}), state); });
  };
  EXPECT_TRUE(contains(refusal(2, cache), "Conv1D: x has 2 tokens, but with a cache takes one"));
  EXPECT_TRUE(
      contains(refusal(1, cache.narrow(1, 0, 2)), "cache must be [1, 3, 5], got [1, 2, 5]"));
}

TEST(Conv1D, AWidthBelowOneIsRefused) {
  const auto message = message_of<std::invalid_argument>([] { Conv1D(3, 0); });
  EXPECT_EQ(message, "Conv1D: temporal_width is 0, but must be at least 1");
}

}  // namespace
}  // namespace gemma::recurrentgemma
