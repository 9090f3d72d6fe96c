#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/modules/recurrentgemma/residual_block.h>

namespace gemma::recurrentgemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::random_tensor;
using testing::tensors_close;

constexpr auto kBoth = {TemporalBlockType::kRecurrent, TemporalBlockType::kAttention};

ResidualBlock make_residual_block(TemporalBlockType type) {
  ResidualBlock block(/*width=*/24, /*mlp_expanded_width=*/20, /*num_heads=*/2,
                      /*attention_window_size=*/3, type);
  testing::randomize(*block, 3);
  return block;
}

at::Tensor norm(const RMSNorm& layer, const at::Tensor& x) {
  const auto mean = (x * x).mean(/*dim=*/-1, /*keepdim=*/true);
  return x / at::sqrt(mean + 1e-6) * (1 + layer->scale.to(at::kDouble));
}

at::Tensor mlp(const MLPBlock& block, const at::Tensor& x) {
  const auto up = [&](int64_t i) {
    const auto w = block->ffw_up->w.to(at::kDouble)[i], b = block->ffw_up->b.to(at::kDouble)[i];
    return at::matmul(x, w) + b;
  };
  const auto inner = at::gelu(up(0), "tanh") * up(1);
  return at::matmul(inner, block->ffw_down->weight.to(at::kDouble).t()) +
         block->ffw_down->bias.to(at::kDouble);
}

TEST(ResidualBlock, EachHalfStandsBehindANormAndIsAddedToWhatCameIn) {
  const auto positions = at::arange(6).expand({2, 6});
  const auto x = random_tensor({2, 6, 24}, 5);
  for (const auto type : kBoth) {
    auto block = make_residual_block(type);
    const auto normed = norm(block->temporal_pre_norm, x.to(at::kDouble)).to(at::kFloat);
    const auto mixed = type == TemporalBlockType::kRecurrent
                           ? block->recurrent_block->forward(normed, positions).first
                           : block->attention_block->forward(normed, positions).first;
    const auto residual = x.to(at::kDouble) + mixed.to(at::kDouble);
    const auto want = residual + mlp(block->mlp_block, norm(block->channel_pre_norm, residual));
    EXPECT_TRUE(tensors_close(block->forward(x, positions).first, want)) << to_string(type);
  }
}

TEST(ResidualBlock, TheRecurrentBlockIsTheProductOfTwoBranches) {
  auto block = make_residual_block(TemporalBlockType::kRecurrent)->recurrent_block;
  const auto positions = at::arange(6).expand({2, 6});
  const auto x = random_tensor({2, 6, 24}, 5);
  const auto inner = block->conv_1d->forward(block->linear_x(x), positions).first;
  const auto y = block->rg_lru->forward(inner, positions).first;
  const auto want = block->linear_out(y * at::gelu(block->linear_y(x), "tanh"));
  EXPECT_TRUE(tensors_close(block->forward(x, positions).first, want.to(at::kDouble)));
}

TEST(ResidualBlock, TheCacheOfAnotherTypeOfBlockIsRefused) {
  const auto cache = make_residual_block(TemporalBlockType::kAttention)
                         ->forward(at::zeros({1, 2, 24}), at::arange(2).view({1, 2}))
                         .second;
  const auto message = message_of<c10::ValueError>([&] {
    make_residual_block(TemporalBlockType::kRecurrent)
        ->forward(at::zeros({1, 1, 24}), at::full({1, 1}, 2), cache);
  });
  EXPECT_TRUE(contains(message, "ResidualBlock: the cache is that of another type of block"));
}

}  // namespace
}  // namespace gemma::recurrentgemma
