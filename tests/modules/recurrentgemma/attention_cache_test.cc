#include <vector>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/modules/recurrentgemma/attention_cache.h>

namespace gemma::recurrentgemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::random_tensor;
using testing::tensors_equal;

constexpr int64_t kWindow = 4, kDim = 2;

// Keys whose numbers are the positions of their tokens.
at::Tensor keys_at(const at::Tensor& positions) {
  const auto keys = positions.to(at::kFloat).unsqueeze(-1).unsqueeze(-1);
  return keys.expand({positions.size(0), positions.size(1), 1, kDim}).contiguous();
}

at::Tensor one_text(int64_t begin, int64_t end) { return at::arange(begin, end).view({1, -1}); }

TEST(AttentionCache, ATokenSeesItselfAndAWindowBeforeItWithinItsDocument) {
  const auto positions = at::tensor({-1, -1, 0, 1, 2, 3, 4, 5, 0, 1}, at::kLong).view({1, -1});
  const std::vector<int64_t> begins = {0, 0, 2, 2, 2, 2, 2, 2, 8, 8};
  const auto mask = forward_pass_mask(positions, kWindow);
  ASSERT_EQ(mask.sizes(), (std::vector<int64_t>{1, 10, 10}));
  for (int64_t q = 0; q < 10; ++q) {
    for (int64_t k = 0; k < 10; ++k) {
      const bool is_seen = k >= begins[static_cast<size_t>(q)] && k <= q && k >= q - kWindow;
      EXPECT_EQ(mask[0][q][k].item<bool>(), is_seen) << q << " sees " << k;
    }
  }
}

TEST(AttentionCache, APromptsLastTokensLieInTheirPlaces) {
  for (int64_t length = 1; length < 3 * kWindow; ++length) {
    const auto positions = one_text(0, length);
    const auto cache =
        cache_from_prompt(keys_at(positions), -keys_at(positions), positions, kWindow);
    EXPECT_EQ(cache.num_tokens.item<int64_t>(), length);
    for (int64_t position = std::max<int64_t>(0, length - kWindow); position < length; ++position) {
      EXPECT_EQ(cache.keys[0][position % kWindow][0][0].item<float>(), position);
      EXPECT_EQ(cache.values[0][position % kWindow][0][0].item<float>(), -position);
    }
  }
}

// Every token of a text longer than some rounds through the cache, whatever part is the prompt.
TEST(AttentionCache, TokensSeeTheSameKeysThroughTheCacheAsWithoutIt) {
  for (int64_t prompt = 1; prompt < 2 * kWindow + 2; ++prompt) {
    const auto positions = one_text(0, prompt);
    auto cache = cache_from_prompt(keys_at(positions), keys_at(positions), positions, kWindow);
    for (int64_t position = prompt; position < 4 * kWindow; ++position) {
      const auto now = one_text(position, position + 1);
      const auto seen = cache_mask(1, cache.num_tokens, kWindow)[0][0];
      const auto keys = at::cat({cache.keys, keys_at(now)}, /*dim=*/1).select(-1, 0).flatten();
      const auto found = std::get<0>(keys.index_select(0, seen.nonzero().flatten()).sort());
      const auto first = std::max<int64_t>(0, position - kWindow);
      EXPECT_TRUE(tensors_equal(found, at::arange(first, position + 1, at::kFloat)))
          << "prompt of " << prompt << ", position " << position;
      cache = updated_cache(keys_at(now), keys_at(now), now, cache);
    }
  }
}

TEST(AttentionCache, AStepWritesIntoTheTensorsThatItIsGiven) {
  const auto positions = one_text(0, 3);
  const auto cache = cache_from_prompt(keys_at(positions), keys_at(positions), positions, kWindow);
  const auto next =
      updated_cache(keys_at(one_text(3, 4)), keys_at(one_text(3, 4)), one_text(3, 4), cache);
  EXPECT_TRUE(next.keys.is_same(cache.keys));
  EXPECT_EQ(cache.keys[0][3][0][0].item<float>(), 3);
  EXPECT_EQ(cache.num_tokens.item<int64_t>(), 4);
}

TEST(AttentionCache, AChunkOfAWindowOrMoreReplacesTheCache) {
  const auto first = one_text(0, 6), second = one_text(6, 11);
  const auto cache = cache_from_prompt(keys_at(first), keys_at(first), first, kWindow);
  const auto whole = one_text(0, 11);
  const auto got = updated_cache(keys_at(second), keys_at(second), second, cache);
  const auto want = cache_from_prompt(keys_at(whole), keys_at(whole), whole, kWindow);
  EXPECT_TRUE(tensors_equal(got.keys, want.keys));
  EXPECT_TRUE(tensors_equal(got.num_tokens, want.num_tokens));
}

TEST(AttentionCache, AChunkThatIsShorterIsRefused) {
  const auto first = one_text(0, 6), second = one_text(6, 8);
  const auto cache = cache_from_prompt(keys_at(first), keys_at(first), first, kWindow);
  const auto message = message_of<c10::ValueError>(
      [&] { updated_cache(keys_at(second), keys_at(second), second, cache); });
  EXPECT_TRUE(contains(message, "LocalAttentionBlock: x has 2 tokens, but with a cache takes one"));
}

TEST(AttentionCache, RowsAreAtPlacesOfTheirOwn) {
  const auto positions = at::tensor({-1, -1, 0, 0, 1, 2}, at::kLong).view({2, 3});
  const auto cache = cache_from_prompt(keys_at(positions), keys_at(positions), positions, kWindow);
  EXPECT_TRUE(tensors_equal(cache.num_tokens, at::tensor({1, 3}, at::kLong)));
  EXPECT_EQ(cache.keys[0][0][0][0].item<float>(), 0);
  EXPECT_EQ(cache.keys[1][2][0][0].item<float>(), 2);
}

}  // namespace
}  // namespace gemma::recurrentgemma
