#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/modules/rotary_embedding.h>
#include <gemma/ops/rotary.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::random_tensor;
using testing::tensors_close;
using testing::tensors_equal;

TEST(GemmaRotaryEmbedding, GivesCosinesAndSinesOfPositionTimesFrequencyTwice) {
  // Frequencies 100^0 and 100^(-2/4); rows of different positions.
  GemmaRotaryEmbedding rope(/*dim=*/4, /*max_position_embeddings=*/8, /*base=*/100.0);
  const auto [cos, sin] = rope(at::zeros({1}), at::tensor({0, 3, 20, 1}).view({2, 2}));
  const auto angles = at::tensor({0.0, 0.0, 3.0, 0.3, 20.0, 2.0, 1.0, 0.1}).view({2, 2, 2});
  const auto twice = at::cat({angles, angles}, /*dim=*/-1);
  EXPECT_TRUE(tensors_close(cos, twice.cos().to(at::kFloat)));
  EXPECT_TRUE(tensors_close(sin, twice.sin().to(at::kFloat)));
}

TEST(GemmaRotaryEmbedding, ComputesInFloat32AndReturnsTheDtypeOfX) {
  GemmaRotaryEmbedding rope(/*dim=*/8);
  const auto positions = at::arange(5000, 5003).unsqueeze(0);
  const auto [cos, sin] = rope(at::zeros({1}), positions);
  const auto [half_cos, half_sin] = rope(at::zeros({1}, at::kBFloat16), positions);
  EXPECT_TRUE(tensors_equal(half_cos, cos.to(at::kBFloat16)));
  EXPECT_TRUE(tensors_equal(half_sin, sin.to(at::kBFloat16)));
}

// The two ways to write one rotation.
TEST(ApplyRotaryPosEmb, TurnsAsTheComplexTableDoes) {
  GemmaRotaryEmbedding rope(/*dim=*/12);
  const auto q = random_tensor({2, 3, 5, 12}, /*seed=*/1);
  const auto k = random_tensor({2, 1, 5, 12}, /*seed=*/2);
  const auto [cos, sin] = rope(q, at::arange(5).expand({2, 5}));
  const auto [turned_q, turned_k] = apply_rotary_pos_emb(q, k, cos, sin);
  const auto freqs = precompute_freqs_cis(/*dim=*/12, /*end=*/5);
  const auto want = [&](const at::Tensor& x) {
    return apply_rotary_emb(x.transpose(1, 2), freqs).transpose(1, 2);
  };
  EXPECT_TRUE(tensors_close(turned_q, want(q)));
  EXPECT_TRUE(tensors_close(turned_k, want(k)));
  const auto [other_q, other_k] =
      apply_rotary_pos_emb(q.transpose(1, 2), k.transpose(1, 2), cos, sin, /*unsqueeze_dim=*/2);
  EXPECT_TRUE(tensors_equal(other_q.transpose(1, 2), turned_q));
  EXPECT_TRUE(tensors_equal(other_k.transpose(1, 2), turned_k));
}

TEST(GemmaRotaryEmbedding, RefusesWhatCannotBe) {
  EXPECT_EQ(message_of<std::invalid_argument>([] { GemmaRotaryEmbedding(/*dim=*/5); }),
            "GemmaRotaryEmbedding: dim is 5, but must be an even number above 0");
  GemmaRotaryEmbedding rope(/*dim=*/4);
  EXPECT_TRUE(contains(message_of<c10::ValueError>([&] { rope(at::zeros({1}), at::arange(3)); }),
                       "GemmaRotaryEmbedding: position_ids must be [B, T], got [3]"));
}

}  // namespace
}  // namespace gemma
