#include <cmath>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/modules/module.h>
#include <gemma/ops/rotary.h>

namespace gemma {
namespace {

using testing::random_tensor;
using testing::tensors_close;
using testing::tensors_equal;

// cos + i sin of these angles.
at::Tensor cis(const std::vector<double>& angles, at::IntArrayRef sizes) {
  const auto radians = at::tensor(angles, at::kDouble).view(sizes);
  return at::complex(radians.cos(), radians.sin()).to(at::kComplexFloat);
}

TEST(PrecomputeFreqsCis, TurnsByPositionTimesFrequency) {
  // Frequencies 100^0 and 100^(-2/4).
  EXPECT_TRUE(tensors_close(precompute_freqs_cis(/*dim=*/4, /*end=*/3, /*theta=*/100.0),
                            cis({0, 0, 1, 0.1, 2, 0.2}, {3, 2})));
}

TEST(PrecomputeFreqsCis, DividesTheFrequenciesByTheScalingFactor) {
  EXPECT_TRUE(tensors_close(
      precompute_freqs_cis(/*dim=*/4, /*end=*/3, /*theta=*/100.0, /*rope_scaling_factor=*/8),
      cis({0, 0, 0.125, 0.0125, 0.25, 0.025}, {3, 2})));
}

TEST(PrecomputeFreqsCis, HasThetaTenThousandByDefault) {
  EXPECT_TRUE(tensors_equal(precompute_freqs_cis(/*dim=*/24, /*end=*/7),
                            precompute_freqs_cis(/*dim=*/24, /*end=*/7, /*theta=*/10'000.0)));
}

TEST(PrecomputeFreqsCis, AgreesWithFloat64) {
  const int64_t dim = 24;
  const int64_t end = 50;
  std::vector<double> angles;
  for (int64_t position = 0; position < end; ++position) {
    for (int64_t i = 0; i < dim / 2; ++i) {
      const auto exponent = -2.0 * static_cast<double>(i) / static_cast<double>(dim);
      angles.push_back(static_cast<double>(position) * std::pow(1e6, exponent));
    }
  }
  EXPECT_TRUE(
      tensors_close(precompute_freqs_cis(dim, end, /*theta=*/1e6), cis(angles, {end, dim / 2})));
}

// model.py line by line; 1.0 / x there is a reciprocal, which a division would not match.
TEST(PrecomputeFreqsCis, IsTheReferencesTableBitForBit) {
  const auto exponents = at::arange(0, 256, 2).to(at::kFloat) / 256;
  const auto freqs = at::reciprocal(at::pow(1e6, exponents));
  const auto angles = at::outer(at::arange(300), freqs);
  EXPECT_TRUE(tensors_equal(precompute_freqs_cis(/*dim=*/256, /*end=*/300, /*theta=*/1e6),
                            at::polar(at::ones_like(angles), angles)));
}

TEST(PrecomputeFreqsCis, IsTheSameUnderAnyDefaultDtype) {
  const auto want = precompute_freqs_cis(/*dim=*/24, /*end=*/7);
  for (const auto dtype : {at::kBFloat16, at::kHalf, at::kDouble}) {
    SCOPED_TRACE(c10::toString(dtype));
    const DefaultDtypeGuard guard(dtype);
    EXPECT_TRUE(tensors_equal(precompute_freqs_cis(/*dim=*/24, /*end=*/7), want));
  }
}

TEST(ApplyRotaryEmb, PairsEachNumberWithTheOneHalfTheHeadAway) {
  const auto quarter_turn = cis({std::acos(0.0), std::acos(0.0)}, {1, 2});
  const auto x = at::tensor({1.0F, 2.0F, 3.0F, 4.0F}).view({1, 1, 1, 4});
  // (1 + 3i) i = -3 + i and (2 + 4i) i = -4 + 2i.
  EXPECT_TRUE(tensors_close(apply_rotary_emb(x, quarter_turn),
                            at::tensor({-3.0F, -4.0F, 1.0F, 2.0F}).view({1, 1, 1, 4})));
}

TEST(ApplyRotaryEmb, AgreesWithFloat64) {
  const auto x = random_tensor({2, 9, 3, 24}, /*seed=*/1);
  EXPECT_TRUE(tensors_close(
      apply_rotary_emb(x, precompute_freqs_cis(/*dim=*/24, /*end=*/9, /*theta=*/500.0)),
      testing::oracle::rope(x.to(at::kDouble), /*theta=*/500.0)));
}

TEST(ApplyRotaryEmb, LeavesPositionZeroAsItIs) {
  const auto x = random_tensor({2, 1, 3, 24}, /*seed=*/1);
  EXPECT_TRUE(tensors_equal(apply_rotary_emb(x, precompute_freqs_cis(/*dim=*/24, /*end=*/1)), x));
}

TEST(ApplyRotaryEmb, KeepsNorms) {
  const auto x = random_tensor({2, 30, 3, 24}, /*seed=*/1);
  const auto rotated = apply_rotary_emb(x, precompute_freqs_cis(/*dim=*/24, /*end=*/30));
  EXPECT_TRUE(tensors_close(rotated.square().sum(-1), x.square().sum(-1)));
  EXPECT_FALSE(tensors_close(rotated, x));
}

TEST(ApplyRotaryEmb, MakesProductsDependOnTheDistanceOnly) {
  const auto freqs_cis = precompute_freqs_cis(/*dim=*/24, /*end=*/30);
  const auto q = random_tensor({1, 1, 1, 24}, /*seed=*/1).expand({1, 30, 1, 24});
  const auto k = random_tensor({1, 1, 1, 24}, /*seed=*/2).expand({1, 30, 1, 24});
  const auto rotated_q = apply_rotary_emb(q, freqs_cis).view({30, 24});
  const auto rotated_k = apply_rotary_emb(k, freqs_cis).view({30, 24});
  const auto products = at::matmul(rotated_q, rotated_k.t());  // [position of q, position of k]
  for (int64_t distance = -29; distance < 30; ++distance) {
    const auto same = products.diagonal(distance);
    EXPECT_TRUE(tensors_close(same, same[0].expand_as(same))) << "distance " << distance;
  }
}

TEST(ApplyRotaryEmb, KeepsShapeAndDtype) {
  const auto freqs_cis = precompute_freqs_cis(/*dim=*/24, /*end=*/5);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(c10::toString(dtype));
    const auto y = apply_rotary_emb(random_tensor({2, 5, 3, 24}, /*seed=*/1, dtype), freqs_cis);
    EXPECT_EQ(y.sizes(), (std::vector<int64_t>{2, 5, 3, 24}));
    EXPECT_EQ(y.scalar_type(), dtype);
  }
}

TEST(ApplyRotaryEmb, RotatesInFloat32) {
  const auto freqs_cis = precompute_freqs_cis(/*dim=*/24, /*end=*/5);
  const auto x = random_tensor({2, 5, 3, 24}, /*seed=*/1, at::kBFloat16);
  EXPECT_TRUE(tensors_equal(apply_rotary_emb(x, freqs_cis),
                            apply_rotary_emb(x.to(at::kFloat), freqs_cis).to(at::kBFloat16)));
}

}  // namespace
}  // namespace gemma
