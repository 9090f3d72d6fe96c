#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/modules/masks.h>
#include <gemma/modules/module.h>

namespace gemma {
namespace {

using testing::tensors_equal;

constexpr double kMasked = -2.3819763e38;
constexpr float kM = -2.3819763e38F;

at::Tensor positions(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }

// The masks as model.py's generate makes them: for all positions, then the rows it wants.
at::Tensor reference_mask(const at::Tensor& rows, int64_t max_seq_len, int64_t window) {
  const auto full = at::full({1, 1, max_seq_len, max_seq_len}, kMasked, default_dtype());
  auto mask = at::triu(full.to(at::kFloat), /*diagonal=*/1);
  if (window > 0) mask = mask + at::tril(full, /*diagonal=*/-window);
  return mask.index_select(2, rows);
}

TEST(CausalMask, HidesTheFuture) {
  const auto want = at::tensor({0.0F, kM, kM, kM,    //
                                0.0F, 0.0F, kM, kM,  //
                                0.0F, 0.0F, 0.0F, kM})
                        .view({1, 1, 3, 4});
  EXPECT_TRUE(tensors_equal(causal_mask(positions({0, 1, 2}), /*max_seq_len=*/4), want));
}

TEST(CausalMask, GivesTheRowsOfThePositions) {
  const auto want = at::tensor({0.0F, 0.0F, 0.0F, kM, 0.0F, kM, kM, kM}).view({1, 1, 2, 4});
  EXPECT_TRUE(tensors_equal(causal_mask(positions({2, 0}), /*max_seq_len=*/4), want));
}

TEST(SlidingWindowMask, HidesTheFutureAndWhatLeftTheWindow) {
  const auto want = at::tensor({0.0F, kM, kM, kM,    //
                                0.0F, 0.0F, kM, kM,  //
                                kM, 0.0F, 0.0F, kM,  //
                                kM, kM, 0.0F, 0.0F})
                        .view({1, 1, 4, 4});
  EXPECT_TRUE(tensors_equal(
      sliding_window_mask(positions({0, 1, 2, 3}), /*max_seq_len=*/4, /*window=*/2), want));
}

TEST(SlidingWindowMask, ShowsAsManyKeysAsTheWindowIsWide) {
  constexpr int64_t kLength = 12;
  for (const int64_t window : {1, 2, 3, 11, 12, 50}) {
    SCOPED_TRACE(window);
    const auto mask = sliding_window_mask(at::arange(kLength), kLength, window);
    const auto shown = (mask == 0).sum(-1).flatten();
    const auto want = at::arange(1, kLength + 1).clamp_max(window);
    EXPECT_TRUE(tensors_equal(shown, want));
  }
}

TEST(SlidingWindowMask, IsTheCausalMaskWhenTheWindowHoldsEverything) {
  EXPECT_TRUE(tensors_equal(sliding_window_mask(at::arange(9), /*max_seq_len=*/9, /*window=*/9),
                            causal_mask(at::arange(9), /*max_seq_len=*/9)));
}

TEST(Masks, AreTheReferencesUnderEveryDefaultDtypeThatItTakes) {
  const auto rows = positions({4, 5, 6});
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    SCOPED_TRACE(c10::toString(dtype));
    const DefaultDtypeGuard guard(dtype);
    EXPECT_TRUE(tensors_equal(causal_mask(rows, /*max_seq_len=*/8),
                              reference_mask(rows, /*max_seq_len=*/8, /*window=*/0)));
    EXPECT_TRUE(
        tensors_equal(sliding_window_mask(rows, /*max_seq_len=*/8, /*window=*/3),
                      reference_mask(rows, /*max_seq_len=*/8, /*window=*/3).to(at::kFloat)));
  }
}

// The reference fails there: the value is too large for float16.
TEST(Masks, HoldTheFloat32ValueWhenTheDefaultDtypeIsFloat16) {
  const DefaultDtypeGuard guard(at::kHalf);
  const auto want = at::tensor({0.0F, kM}).view({1, 1, 1, 2});
  EXPECT_TRUE(tensors_equal(causal_mask(positions({0}), /*max_seq_len=*/2), want));
  EXPECT_TRUE(
      tensors_equal(sliding_window_mask(positions({0}), /*max_seq_len=*/2, /*window=*/1), want));
}

TEST(Masks, AreFiniteSoThatASumWithScoresIsANumber) {
  EXPECT_TRUE(at::isfinite(causal_mask(at::arange(9), /*max_seq_len=*/9)).all().item<bool>());
  EXPECT_TRUE(at::isfinite(sliding_window_mask(at::arange(9), /*max_seq_len=*/9, /*window=*/2))
                  .all()
                  .item<bool>());
}

TEST(Masks, HaveARowAPositionAndAColumnASlotInFloat32) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(c10::toString(dtype));
    const DefaultDtypeGuard guard(dtype);
    for (const auto& mask : {causal_mask(positions({5, 6}), /*max_seq_len=*/9),
                             sliding_window_mask(positions({5, 6}), /*max_seq_len=*/9,
                                                 /*window=*/3)}) {
      EXPECT_EQ(mask.sizes(), (std::vector<int64_t>{1, 1, 2, 9}));
      EXPECT_EQ(mask.scalar_type(), at::kFloat);
    }
  }
}

// Three tokens of prefix, then two; a window of two.
TEST(PrefixMask, ShowsThePrefixToItselfAndElseWhatIsBefore) {
  const auto is_prefix = (at::arange(5) < 3).unsqueeze(0);
  const auto seen = [&](std::optional<int64_t> window) {
    return (prefix_mask(at::arange(5), is_prefix, window) == 0).to(at::kInt)[0][0];
  };
  const std::vector<int> all = {1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1,
                                0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1};
  EXPECT_TRUE(tensors_equal(seen(std::nullopt), at::tensor(all).view({5, 5})));
  const std::vector<int> local = {1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1,
                                  0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1};
  EXPECT_TRUE(tensors_equal(seen(2), at::tensor(local).view({5, 5})));
}

TEST(PrefixMask, HasARowAPositionAndRowsOfTheirOwn) {
  const auto is_prefix = at::tensor({1, 1, 0, 0, 1, 1, 1, 0}, at::kInt).view({2, 4}) > 0;
  const auto mask = prefix_mask(positions({1, 3}), is_prefix);
  EXPECT_EQ(mask.sizes(), (std::vector<int64_t>{2, 1, 2, 4}));
  const std::vector<int> want = {1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1};
  EXPECT_TRUE(tensors_equal((mask == 0).to(at::kInt), at::tensor(want).view({2, 1, 2, 4})));
  EXPECT_TRUE(at::isfinite(mask).all().item<bool>());
}

}  // namespace
}  // namespace gemma
