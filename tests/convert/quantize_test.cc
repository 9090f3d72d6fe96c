#include <cmath>
#include <limits>
#include <set>
#include <stdexcept>
#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/convert/quantize.h>
#include <gemma/weights/weights.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::random_tensor;
using testing::tensors_equal;
using testing::tiny_config;

TEST(QuantFromString, NamesTheValidOnes) {
  EXPECT_EQ(quant_from_string("int8"), Quant::kInt8);
  EXPECT_EQ(message_of<std::invalid_argument>([] { quant_from_string("int3"); }),
            "quant 'int3' is unknown; valid: int8, int4");
}

// The largest number of a row is 127.5 times its scale: here the scale is 1.
TEST(QuantizeWeight, RoundsHalvesToEvenAndClamps) {
  const auto result =
      quantize_weight(at::tensor({127.5F, 0.5F, 1.5F, -2.5F, -127.5F, 3.49F}).unsqueeze(0));
  EXPECT_TRUE(tensors_equal(result.weight,
                            at::tensor({127, 0, 2, -2, -128, 3}).to(at::kChar).unsqueeze(0)));
  EXPECT_TRUE(tensors_equal(result.weight_scaler, at::ones({1})));
}

TEST(QuantizeWeight, HasAScaleForEachRow) {
  const auto weight = at::tensor({1.F, 2.F, -255.F, 4.F, 510.F, 0.F}).reshape({3, 2});
  const auto result = quantize_weight(weight);
  EXPECT_TRUE(tensors_equal(result.weight_scaler, at::tensor({2.F, 255.F, 510.F}) / 127.5));
  EXPECT_TRUE(tensors_equal(result.weight,
                            at::tensor({64, 127, -128, 2, 127, 0}).to(at::kChar).reshape({3, 2})));
}

// The reference's floor: a row of zeros must not be divided by 0.
TEST(QuantizeWeight, KeepsScalesAboveEpsilon) {
  const auto result = quantize_weight(at::tensor({0.F, 0.F, 1e-7F, -3e-7F}).reshape({2, 2}));
  EXPECT_TRUE(tensors_equal(result.weight_scaler, at::full({2}, 0x1p-23)));
  EXPECT_TRUE(
      tensors_equal(result.weight, at::tensor({0, 0, 1, -3}).to(at::kChar).reshape({2, 2})));
}

TEST(QuantizeWeight, CountsInFloat32AndStoresScalesInTheWeightsDtype) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    SCOPED_TRACE(c10::toString(dtype));
    const auto weight = random_tensor({7, 33}, /*seed=*/1, dtype);
    const auto got = quantize_weight(weight);
    const auto want = quantize_weight(weight.to(at::kFloat));
    EXPECT_TRUE(tensors_equal(got.weight, want.weight));
    EXPECT_TRUE(tensors_equal(got.weight_scaler, want.weight_scaler.to(dtype)));
  }
}

TEST(QuantizeWeight, IsOffByHalfAScaleAtMost) {
  const auto weight = random_tensor({50, 64}, /*seed=*/1).to(at::kDouble);
  const auto result = quantize_weight(weight.to(at::kFloat));
  const auto scale = result.weight_scaler.to(at::kDouble).unsqueeze(-1);
  const auto error = (result.weight.to(at::kDouble) * scale - weight).abs() / scale;
  EXPECT_LE(error.max().item<double>(), 0.5001);
}

TEST(QuantizeWeight, GivesABlockOfRowsWhatTheyHaveInTheWhole) {
  const auto weight = random_tensor({50, 64}, /*seed=*/1);
  const auto whole = quantize_weight(weight);
  const auto block = quantize_weight(weight.narrow(0, 20, 7));
  EXPECT_TRUE(tensors_equal(block.weight, whole.weight.narrow(0, 20, 7)));
  EXPECT_TRUE(tensors_equal(block.weight_scaler, whole.weight_scaler.narrow(0, 20, 7)));
}

TEST(QuantizeWeight, TakesMatricesWithoutElements) {
  EXPECT_EQ(quantize_weight(at::empty({0, 3})).weight_scaler.numel(), 0);
  EXPECT_EQ(quantize_weight(at::empty({3, 0})).weight_scaler.numel(), 3);
}

TEST(QuantizeWeight, RefusesWhatInt8CannotHold) {
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    auto weight = at::ones({3, 4});
    weight[1][2] = bad;
    EXPECT_TRUE(contains(message_of<std::invalid_argument>([&] { quantize_weight(weight); }),
                         "holds NaN or infinity"));
  }
  EXPECT_EQ(
      message_of<std::invalid_argument>([] { quantize_weight(at::ones({2, 3}, at::kInt)); }),
      "quantize_weight: got int32 [2, 3], but quantises a matrix of floats; leave this one as "
      "it is");
  EXPECT_TRUE(contains(message_of<std::invalid_argument>([] { quantize_weight(at::ones({2})); }),
                       "got float32 [2]"));
}

class IsQuantizedWeight : public ::testing::TestWithParam<Architecture> {};

// The modules decide: those with a scaler.
TEST_P(IsQuantizedWeight, KnowsTheWeightsThatAQuantisedModelHasScalesFor) {
  auto config = tiny_config(GetParam());
  config.quant = true;
  const GemmaForCausalLM model(config);
  std::set<std::string> names;
  for (const auto& [name, tensor] : state_dict(*model)) names.insert(name);
  for (const auto& name : names) {
    EXPECT_EQ(is_quantized_weight(name), names.contains(name + "_scaler")) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(,
                         IsQuantizedWeight,
                         ::testing::ValuesIn(testing::kArchitectures),
                         testing::architecture_name);

TEST(IsQuantizedWeightOfAMultimodalModel, LeavesTheVisionModelAlone) {
  EXPECT_TRUE(is_quantized_weight("text_token_embedder.weight"));
  EXPECT_TRUE(is_quantized_weight("mm_input_projection.weight"));
  EXPECT_FALSE(is_quantized_weight("mm_soft_embedding_norm.weight"));
  EXPECT_FALSE(is_quantized_weight("siglip_vision_model.encoder_blocks.0.self_attn.o_proj.weight"));
}

// Numbers that 4 bits and a scale of 0.5 hold without loss; a group's largest is its -8.
TEST(QuantizeWeightInt4, KeepsWhatFourBitsCanHold) {
  const auto numbers = at::arange(-8, 8, at::kFloat).repeat({2}) * 0.5;
  const auto got = quantize_weight_int4(numbers.unsqueeze(0));
  EXPECT_TRUE(at::equal(got.weight_scaler, at::full({1, 1}, 0.5, at::kHalf)));
  // The first 16 numbers in the lower bits, the others, the same, in the upper bits.
  EXPECT_TRUE(at::equal(got.weight, (at::arange(16) * 17).to(at::kByte).unsqueeze(0)));
}

TEST(QuantizeWeightInt4, IsWithinAStepOfTheWeight) {
  const auto weight = testing::random_tensor({20, 96}, /*seed=*/1, at::kBFloat16);
  const auto got = quantize_weight_int4(weight);
  const auto bytes = got.weight.view({20, 3, 16});
  const auto numbers = at::cat({bytes.bitwise_and(15), bytes.bitwise_right_shift(4)}, -1) - 8.0;
  const auto scale = got.weight_scaler.to(at::kFloat).unsqueeze(-1);
  const auto error = (numbers * scale - weight.to(at::kFloat).view({20, 3, 32})).abs();
  // Half a step, and a step at the end that -8 to 7 does not reach.
  EXPECT_LE((error / scale.abs()).max().item<float>(), 1.7F);
  EXPECT_LE((error / scale.abs()).mean().item<float>(), 0.27F);
}

TEST(QuantizeWeightInt4, RefusesRowsThatAreNotWholeGroups) {
  const auto message =
      testing::message_of<std::invalid_argument>([] { quantize_weight_int4(at::zeros({2, 40})); });
  EXPECT_TRUE(testing::contains(message, "rows have 40 numbers, but 4 bits want a multiple of 32"));
}

}  // namespace
}  // namespace gemma
