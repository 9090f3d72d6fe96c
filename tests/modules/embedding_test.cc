#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/modules/embedding.h>

namespace gemma {
namespace {

using testing::for_each_kind_of_weight;
using testing::parameter_names;
using testing::randomize;
using testing::tensors_equal;

TEST(Embedding, GivesTheRowsOfTheIds) {
  Embedding embedding(/*num_embeddings=*/3, /*embedding_dim=*/2, /*quant=*/false);
  embedding->weight.copy_(at::tensor({1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F}).view({3, 2}));
  EXPECT_TRUE(tensors_equal(embedding(at::tensor({2, 0, 2}, at::kLong)),
                            at::tensor({5.0F, 6.0F, 1.0F, 2.0F, 5.0F, 6.0F}).view({3, 2})));
}

TEST(Embedding, MultipliesInt8RowsByTheirScales) {
  Embedding embedding(/*num_embeddings=*/2, /*embedding_dim=*/2, /*quant=*/true);
  embedding->weight.copy_(at::tensor({1, 2, -3, 4}, at::kChar).view({2, 2}));
  embedding->weight_scaler.copy_(at::tensor({0.5F, 2.0F}));
  EXPECT_TRUE(tensors_equal(embedding(at::tensor({1, 0}, at::kLong)),
                            at::tensor({-6.0F, 8.0F, 0.5F, 1.0F}).view({2, 2})));
}

// The reference multiplies the whole table, then takes rows.
TEST(Embedding, GivesQuantizedTheRowsOfTheProductOfTableAndScales) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(c10::toString(dtype));
    const DefaultDtypeGuard guard(dtype);
    Embedding embedding(/*num_embeddings=*/31, /*embedding_dim=*/7, /*quant=*/true);
    randomize(*embedding, /*seed=*/1);
    const auto ids = at::tensor({30, 0, 7, 7, 16, 2}, at::kLong).view({2, 3});
    const auto table = embedding->weight * embedding->weight_scaler.unsqueeze(-1);
    EXPECT_TRUE(tensors_equal(embedding(ids), at::embedding(table, ids)));
  }
}

TEST(Embedding, AddsADimensionToTheIdsAndHasTheWeightsDtype) {
  for_each_kind_of_weight([](at::ScalarType dtype, bool quant) {
    Embedding embedding(/*num_embeddings=*/11, /*embedding_dim=*/7, quant);
    randomize(*embedding, /*seed=*/1);
    const auto y = embedding(at::zeros({2, 3}, at::kLong));
    EXPECT_EQ(y.sizes(), (std::vector<int64_t>{2, 3, 7}));
    EXPECT_EQ(y.scalar_type(), dtype);
  });
}

TEST(Embedding, HasTheReferencesParameters) {
  const DefaultDtypeGuard guard(at::kBFloat16);
  const Embedding plain(/*num_embeddings=*/11, /*embedding_dim=*/7, /*quant=*/false);
  EXPECT_EQ(parameter_names(*plain), std::vector<std::string>{"weight"});
  EXPECT_EQ(plain->weight.sizes(), (std::vector<int64_t>{11, 7}));
  EXPECT_EQ(plain->weight.scalar_type(), at::kBFloat16);

  const Embedding quantized(/*num_embeddings=*/11, /*embedding_dim=*/7, /*quant=*/true);
  EXPECT_EQ(parameter_names(*quantized), (std::vector<std::string>{"weight", "weight_scaler"}));
  EXPECT_EQ(quantized->weight.scalar_type(), at::kChar);
  EXPECT_EQ(quantized->weight_scaler.sizes(), std::vector<int64_t>{11});
  EXPECT_EQ(quantized->weight_scaler.scalar_type(), at::kBFloat16);
}

TEST(Embedding, RefusesIdsOutsideTheTable) {
  for (const bool quant : {false, true}) {
    Embedding embedding(/*num_embeddings=*/3, /*embedding_dim=*/2, quant);
    randomize(*embedding, /*seed=*/1);
    for (const int64_t id : {-1, 3}) {
      SCOPED_TRACE(id);
      EXPECT_THROW(embedding(at::full({1}, id, at::kLong)), c10::Error);
    }
  }
}

}  // namespace
}  // namespace gemma
