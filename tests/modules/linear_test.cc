#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/modules/linear.h>

namespace gemma {
namespace {

using testing::for_each_kind_of_weight;
using testing::parameter_names;
using testing::random_tensor;
using testing::randomize;
using testing::tensors_close;
using testing::tensors_equal;

TEST(Linear, MultipliesByTheTransposedWeight) {
  Linear linear(/*in_features=*/2, /*out_features=*/3, /*quant=*/false);
  linear->weight.copy_(at::tensor({1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F}).view({3, 2}));
  EXPECT_TRUE(tensors_equal(linear(at::tensor({1.0F, 10.0F})), at::tensor({21.0F, 43.0F, 65.0F})));
}

TEST(Linear, MultipliesInt8RowsByTheirScales) {
  Linear linear(/*in_features=*/2, /*out_features=*/2, /*quant=*/true);
  linear->weight.copy_(at::tensor({1, 2, -3, 4}, at::kChar).view({2, 2}));
  linear->weight_scaler.copy_(at::tensor({0.5F, 2.0F}));
  // 0.5 * (1 + 20) and 2 * (-3 + 40).
  EXPECT_TRUE(tensors_equal(linear(at::tensor({1.0F, 10.0F})), at::tensor({10.5F, 74.0F})));
}

TEST(Linear, AgreesWithFloat64) {
  Linear linear(/*in_features=*/37, /*out_features=*/29, /*quant=*/false);
  randomize(*linear, /*seed=*/1);
  const auto x = random_tensor({5, 37}, /*seed=*/2);
  EXPECT_TRUE(
      tensors_close(linear(x), at::matmul(x.to(at::kDouble), linear->weight.to(at::kDouble).t())));
}

TEST(Linear, GivesQuantizedWhatItGivesWithTheProductOfWeightAndScale) {
  Linear quantized(/*in_features=*/37, /*out_features=*/29, /*quant=*/true);
  Linear plain(/*in_features=*/37, /*out_features=*/29, /*quant=*/false);
  randomize(*quantized, /*seed=*/1);
  // Exact in float64, so rounded once.
  plain->weight.copy_(quantized->weight.to(at::kDouble) *
                      quantized->weight_scaler.to(at::kDouble).unsqueeze(1));
  const auto x = random_tensor({5, 37}, /*seed=*/2);
  EXPECT_TRUE(tensors_equal(quantized(x), plain(x)));
}

TEST(Linear, KeepsTheDtypeAndAllDimensionsButTheLast) {
  for_each_kind_of_weight([](at::ScalarType dtype, bool quant) {
    Linear linear(/*in_features=*/7, /*out_features=*/5, quant);
    randomize(*linear, /*seed=*/1);
    const auto y = linear(random_tensor({2, 3, 7}, /*seed=*/2, dtype));
    EXPECT_EQ(y.sizes(), (std::vector<int64_t>{2, 3, 5}));
    EXPECT_EQ(y.scalar_type(), dtype);
  });
}

TEST(Linear, HasTheReferencesParameters) {
  const DefaultDtypeGuard guard(at::kBFloat16);
  const Linear plain(/*in_features=*/7, /*out_features=*/5, /*quant=*/false);
  EXPECT_EQ(parameter_names(*plain), std::vector<std::string>{"weight"});
  EXPECT_EQ(plain->weight.sizes(), (std::vector<int64_t>{5, 7}));
  EXPECT_EQ(plain->weight.scalar_type(), at::kBFloat16);

  const Linear quantized(/*in_features=*/7, /*out_features=*/5, /*quant=*/true);
  EXPECT_EQ(parameter_names(*quantized), (std::vector<std::string>{"weight", "weight_scaler"}));
  EXPECT_EQ(quantized->weight.scalar_type(), at::kChar);
  EXPECT_EQ(quantized->weight_scaler.sizes(), std::vector<int64_t>{5});
  EXPECT_EQ(quantized->weight_scaler.scalar_type(), at::kBFloat16);
}

TEST(Linear, WantsNoGradients) {
  const Linear linear(/*in_features=*/7, /*out_features=*/5, /*quant=*/true);
  for (const auto& parameter : linear->parameters()) EXPECT_FALSE(parameter.requires_grad());
}

}  // namespace
}  // namespace gemma
