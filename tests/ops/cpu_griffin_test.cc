#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/ops/cpu/cpu_ops.h>

namespace gemma {
namespace {

using testing::near_to;
using testing::random_tensor;

const CpuOps kFast;
const Ops kReference;

struct RecurrenceCase {
  int64_t blocks, block, conv_width;
  at::ScalarType dtype;
};

// Blocks below, at and past a vector's width, and weights of each dtype of files.
const std::vector<RecurrenceCase> kCases{{3, 20, 4, at::kFloat},
                                         {1, 7, 2, at::kFloat},
                                         {2, 64, 4, at::kBFloat16},
                                         {2, 33, 3, at::kHalf}};

// A layer's weights and states, and what an operation makes of them.
class Layer {
 public:
  Layer(const RecurrenceCase& row, const Ops& ops)
      : row_(row), ops_(ops), width_(row.blocks * row.block) {
    const auto gate = [&](uint64_t seed) {
      return BiasedWeight{
          weight({row.blocks, row.block, row.block}, seed, 1 / static_cast<double>(row.block)),
          weight({row.blocks, row.block}, seed + 1)};
    };
    conv_ = {weight({row.conv_width, width_}, 1), weight({width_}, 2)};
    weights_ = {gate(3), gate(5), weight({width_}, 7, 1, -4)};
    // What was not written must not be read.
    const auto states = [](at::IntArrayRef sizes) { return at::full(sizes, NAN, at::kFloat); };
    cache_ = {states({8, width_}), states({8, row.conv_width - 1, width_})};
  }

  // x [T, R] -> [T, R].
  at::Tensor run(const at::Tensor& x,
                 Pass pass,
                 const std::vector<Segment>& segments,
                 const std::vector<StateSlots>& slots) const {
    return ops_.recur_segments(x, conv_, weights_, pass, segments, cache_, slots);
  }

  at::Tensor inputs(int64_t tokens, uint64_t seed) const {
    return random_tensor({tokens, width_}, seed);
  }
  const RecurrentCache& cache() const { return cache_; }

 private:
  // The reference has the numbers of all dtypes as float32.
  at::Tensor weight(at::IntArrayRef sizes,
                    uint64_t seed,
                    double scale = 1,
                    double offset = 0) const {
    const auto numbers = (random_tensor(sizes, seed) * scale + offset).to(row_.dtype);
    return ops_.numerics() == Numerics::kFast ? numbers : numbers.to(at::kFloat);
  }

  RecurrenceCase row_;
  const Ops& ops_;
  int64_t width_;
  BiasedWeight conv_;
  RgLruWeights weights_;
  RecurrentCache cache_;
};

TEST(CpuGriffin, ARecurrenceIsThatOfTheReference) {
  for (const auto& row : kCases) {
    const Layer fast(row, kFast), reference(row, kReference);
    const auto first = fast.inputs(40, 11), second = fast.inputs(2, 12);
    // Two texts begin, one of them with a token; then each goes on by a token.
    const std::vector<Segment> prompts{{0, 39, 0}, {39, 1, 0}};
    const std::vector<StateSlots> begin{{-1, 3}, {-1, 0}};
    EXPECT_TRUE(near_to(fast.run(first, Pass::kPrompt, prompts, begin),
                        reference.run(first, Pass::kPrompt, prompts, begin), 1e-5));
    const std::vector<Segment> nexts{{0, 1, 39}, {1, 1, 1}};
    const std::vector<StateSlots> go_on{{3, 5}, {0, 0}};
    EXPECT_TRUE(near_to(fast.run(second, Pass::kDecode, nexts, go_on),
                        reference.run(second, Pass::kDecode, nexts, go_on), 1e-5));
    for (const int64_t slot : {0, 3, 5}) {
      EXPECT_TRUE(
          near_to(fast.cache().rg_lru_state[slot], reference.cache().rg_lru_state[slot], 1e-5));
      EXPECT_TRUE(at::equal(fast.cache().conv1d_state[slot], reference.cache().conv1d_state[slot]));
    }
  }
}

TEST(CpuGriffin, ARecurrenceIsTheSameBitsInPieces) {
  for (const auto& row : kCases) {
    const Layer whole(row, kFast), cut(row, kFast);
    const auto x = whole.inputs(30, 11);
    const auto want = whole.run(x, Pass::kPrompt, {{0, 30, 0}}, {{-1, 1}});
    std::vector<at::Tensor> parts;
    for (int64_t at = 0; at < 30;) {
      const auto count = std::min<int64_t>(1 + at, 30 - at);
      parts.push_back(cut.run(x.narrow(0, at, count), Pass::kPrompt, {{0, count, at}}, {{1, 1}}));
      at += count;
    }
    EXPECT_TRUE(at::equal(at::cat(parts), want));
    EXPECT_TRUE(at::equal(cut.cache().rg_lru_state[1], whole.cache().rg_lru_state[1]));
  }
}

// Weights that lie in memory as the kernels want them, and such that do not.
TEST(CpuGriffin, TheOrderOfWeightsInMemoryDoesNotMatter) {
  const BiasedWeight up{random_tensor({2, 24, 50}, 1, at::kBFloat16),
                        random_tensor({2, 1, 1, 50}, 2, at::kBFloat16)};
  const BiasedWeight turned{up.weight.transpose(1, 2).contiguous().transpose(1, 2), up.bias};
  const BiasedWeight down{random_tensor({24, 50}, 3, at::kBFloat16),
                          random_tensor({24}, 4, at::kBFloat16)};
  for (const auto pass : {Pass::kPrompt, Pass::kDecode}) {
    const auto x = random_tensor({11, 24}, 5);
    const auto got = kFast.stacked_mlp(x, up, down, pass);
    EXPECT_TRUE(at::equal(kFast.stacked_mlp(x, turned, down, pass), got));
    const auto wide = [](const BiasedWeight& weight) {
      return BiasedWeight{weight.weight.to(at::kFloat), weight.bias.to(at::kFloat)};
    };
    EXPECT_TRUE(near_to(got, kReference.stacked_mlp(x, wide(up), wide(down), pass), 1e-5));
  }
}

TEST(CpuGriffin, AGatedProductIsThatOfTheReference) {
  const BiasedWeight linear{random_tensor({9, 40}, 1), random_tensor({9}, 2)};
  for (const int64_t rows : {1, 3, 20}) {
    const auto x = random_tensor({rows, 40}, 3);
    const auto gate = random_tensor({rows, 40}, 4);
    for (const auto pass : {Pass::kPrompt, Pass::kDecode}) {
      EXPECT_TRUE(near_to(kFast.gelu_gated_linear(x, gate, linear, pass),
                          kReference.gelu_gated_linear(x, gate, linear, pass), 1e-5));
    }
  }
}

}  // namespace
}  // namespace gemma
