#include <cmath>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/modules/rms_norm.h>

namespace gemma {
namespace {

using testing::parameter_names;
using testing::random_tensor;
using testing::randomize;
using testing::tensors_close;
using testing::tensors_equal;

TEST(RMSNorm, DividesEachRowByItsRootMeanSquare) {
  RMSNorm norm(/*dim=*/2, /*eps=*/0.0);
  const auto x = at::tensor({3.0F, 4.0F, -3.0F, 4.0F}).view({2, 2});
  EXPECT_TRUE(tensors_close(norm(x), x / std::sqrt(12.5)));
}

TEST(RMSNorm, MultipliesByOnePlusTheWeight) {
  RMSNorm norm(/*dim=*/2, /*eps=*/0.0);
  norm->weight.copy_(at::tensor({1.0F, -0.5F}));
  EXPECT_TRUE(tensors_close(norm(at::tensor({7.0F, 7.0F})), at::tensor({2.0F, 0.5F})));
}

TEST(RMSNorm, MultipliesByTheWeightItselfWithoutTheUnitOffset) {
  RMSNorm norm(/*dim=*/2, /*eps=*/0.0, /*add_unit_offset=*/false);
  norm->weight.copy_(at::tensor({1.0F, -0.5F}));
  EXPECT_TRUE(tensors_close(norm(at::tensor({7.0F, 7.0F})), at::tensor({1.0F, -0.5F})));
}

TEST(RMSNorm, AddsEpsToTheMeanSquare) {
  RMSNorm norm(/*dim=*/2, /*eps=*/3.0);
  // sqrt(1 + 3) = 2.
  EXPECT_TRUE(tensors_close(norm(at::tensor({1.0F, -1.0F})), at::tensor({0.5F, -0.5F})));
}

TEST(RMSNorm, AgreesWithFloat64) {
  RMSNorm norm(/*dim=*/33);
  randomize(*norm, /*seed=*/1);
  const auto x = random_tensor({2, 5, 33}, /*seed=*/2);
  EXPECT_TRUE(tensors_close(
      norm(x), testing::oracle::rms_norm(x.to(at::kDouble), norm->weight.to(at::kDouble))));
}

// bfloat16 numbers are float32 numbers: only the result is rounded.
TEST(RMSNorm, ComputesInFloat32) {
  RMSNorm norm(/*dim=*/33);
  randomize(*norm, /*seed=*/1);
  const auto x = random_tensor({5, 33}, /*seed=*/2, at::kBFloat16);
  EXPECT_TRUE(tensors_equal(norm(x), norm(x.to(at::kFloat)).to(at::kBFloat16)));
}

TEST(RMSNorm, IsFiniteWhereTheSquareOfAHalfIsNot) {
  RMSNorm norm(/*dim=*/2, /*eps=*/0.0);
  const auto x = at::tensor({300.0F, -300.0F}).to(at::kHalf);
  EXPECT_TRUE(tensors_equal(norm(x), at::tensor({1.0F, -1.0F}).to(at::kHalf)));
}

TEST(RMSNorm, GivesTheSameForARowAndItsMultiples) {
  RMSNorm norm(/*dim=*/33, /*eps=*/0.0);
  randomize(*norm, /*seed=*/1);
  const auto x = random_tensor({5, 33}, /*seed=*/2);
  EXPECT_TRUE(tensors_close(norm(x * 1000), norm(x)));
}

TEST(RMSNorm, GivesZerosForZeros) {
  RMSNorm norm(/*dim=*/3);
  EXPECT_TRUE(tensors_equal(norm(at::zeros({2, 3})), at::zeros({2, 3})));
}

TEST(RMSNorm, ReturnsTheInputsShapeAndDtypeWhateverTheWeights) {
  for (const auto weight_dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      SCOPED_TRACE(fmt::format("{} of {}", c10::toString(dtype), c10::toString(weight_dtype)));
      const DefaultDtypeGuard guard(weight_dtype);
      RMSNorm norm(/*dim=*/5);
      const auto y = norm(random_tensor({2, 3, 5}, /*seed=*/1, dtype));
      EXPECT_EQ(y.sizes(), (std::vector<int64_t>{2, 3, 5}));
      EXPECT_EQ(y.scalar_type(), dtype);
    }
  }
}

TEST(RMSNorm, HasTheReferencesParameter) {
  const DefaultDtypeGuard guard(at::kBFloat16);
  const RMSNorm norm(/*dim=*/5);
  EXPECT_EQ(parameter_names(*norm), std::vector<std::string>{"weight"});
  EXPECT_TRUE(tensors_equal(norm->weight, at::zeros({5}, at::kBFloat16)));
  EXPECT_FALSE(norm->weight.requires_grad());
}

}  // namespace
}  // namespace gemma
