#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/modules/mlp.h>

namespace gemma {
namespace {

using testing::for_each_kind_of_weight;
using testing::parameter_names;
using testing::random_tensor;
using testing::randomize;
using testing::tensors_close;
using testing::tensors_equal;
namespace oracle = testing::oracle;

TEST(GemmaMLP, GatesByTheTanhFormOfGelu) {
  GemmaMLP mlp(/*hidden_size=*/1, /*intermediate_size=*/1, /*quant=*/false);
  mlp->gate_proj->weight.fill_(1);
  mlp->up_proj->weight.fill_(2);
  mlp->down_proj->weight.fill_(3);
  // gelu_tanh(1) = 0.84119199; by the error function it would be 0.84134475.
  EXPECT_TRUE(tensors_close(mlp(at::ones({1, 1})), at::full({1, 1}, 3 * 2 * 0.84119199)));
}

TEST(GemmaMLP, AgreesWithFloat64) {
  for (const bool quant : {false, true}) {
    SCOPED_TRACE(quant ? "int8" : "float32");
    GemmaMLP mlp(/*hidden_size=*/33, /*intermediate_size=*/53, quant);
    randomize(*mlp, /*seed=*/1);
    const auto x = random_tensor({2, 5, 33}, /*seed=*/2);
    EXPECT_TRUE(
        tensors_close(mlp(x), oracle::mlp(oracle::weights_of(*mlp), "", x.to(at::kDouble))));
  }
}

TEST(GemmaMLP, GivesZerosForZeros) {
  GemmaMLP mlp(/*hidden_size=*/3, /*intermediate_size=*/5, /*quant=*/false);
  randomize(*mlp, /*seed=*/1);
  EXPECT_TRUE(tensors_equal(mlp(at::zeros({2, 3})), at::zeros({2, 3})));
}

TEST(GemmaMLP, KeepsShapeAndDtype) {
  for_each_kind_of_weight([](at::ScalarType dtype, bool quant) {
    GemmaMLP mlp(/*hidden_size=*/7, /*intermediate_size=*/11, quant);
    randomize(*mlp, /*seed=*/1);
    const auto y = mlp(random_tensor({2, 3, 7}, /*seed=*/2, dtype));
    EXPECT_EQ(y.sizes(), (std::vector<int64_t>{2, 3, 7}));
    EXPECT_EQ(y.scalar_type(), dtype);
  });
}

TEST(GemmaMLP, HasTheReferencesParameters) {
  const GemmaMLP plain(/*hidden_size=*/7, /*intermediate_size=*/11, /*quant=*/false);
  EXPECT_EQ(parameter_names(*plain),
            (std::vector<std::string>{"gate_proj.weight", "up_proj.weight", "down_proj.weight"}));
  EXPECT_EQ(plain->gate_proj->weight.sizes(), (std::vector<int64_t>{11, 7}));
  EXPECT_EQ(plain->up_proj->weight.sizes(), (std::vector<int64_t>{11, 7}));
  EXPECT_EQ(plain->down_proj->weight.sizes(), (std::vector<int64_t>{7, 11}));

  const GemmaMLP quantized(/*hidden_size=*/7, /*intermediate_size=*/11, /*quant=*/true);
  EXPECT_EQ(parameter_names(*quantized),
            (std::vector<std::string>{"gate_proj.weight", "gate_proj.weight_scaler",
                                      "up_proj.weight", "up_proj.weight_scaler", "down_proj.weight",
                                      "down_proj.weight_scaler"}));
}

}  // namespace
}  // namespace gemma
