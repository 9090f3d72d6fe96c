#include <string>
#include <tuple>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/convert/quantize.h>
#include <gemma/ops/cpu/cpu_ops.h>
#include <gemma/ops/cpu/kernels.h>
#include <gemma/ops/rotary.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::near_to;
using testing::random_tensor;

const CpuOps kFast;

at::Tensor linear(const Ops& ops,
                  const at::Tensor& x,
                  const WeightView& weight,
                  Pass pass = Pass::kAny) {
  return ops.linear(x, weight, pass);
}

at::Tensor gated_mlp(const Ops& ops,
                     const at::Tensor& x,
                     const WeightView& gate,
                     const WeightView& up,
                     const WeightView& down,
                     Pass pass = Pass::kAny) {
  return ops.gated_mlp(x, gate, up, down, pass);
}

// The formats of weights, by the dtype that they are kept in: kByte is 4 bits.
WeightView random_weight(int64_t rows, int64_t columns, at::ScalarType dtype, uint64_t seed) {
  if (dtype != at::kChar) return random_tensor({rows, columns}, seed, dtype);
  const auto data = (random_tensor({rows, columns}, seed) * 40).clamp(-128, 127).to(at::kChar);
  return {data, random_tensor({rows}, seed + 1).abs() / 40};
}

at::Tensor wide(const WeightView& weight) {
  const auto data = weight.data.to(at::kDouble);
  return weight.quantized() ? data * weight.scales.to(at::kDouble).unsqueeze(1) : data;
}

// Activations for int8 are rounded to 16 bits; a test of its own says how far that may reach.
double tolerance_of(at::ScalarType dtype) { return dtype == at::kChar ? 2e-4 : 2e-6; }

struct Shape {
  int64_t rows, in, out;
};

// Few rows and many, whole vectors and tails, one panel and parts of it, several blocks of columns
// and of rows.
const std::vector<Shape> kShapes{
    {1, 64, 32},    {1, 1, 1},    {1, 7, 5},      {2, 33, 100},   {3, 40, 17},   {4, 129, 66},
    {5, 24, 3},     {6, 640, 48}, {7, 31, 19},    {8, 96, 257},   {9, 8, 16},    {12, 321, 40},
    {13, 5, 1},     {64, 33, 15}, {100, 700, 31}, {19, 1000, 65}, {200, 37, 70}, {530, 40, 300},
    {40, 2100, 33}, {5, 32, 700}, {2, 64, 2100}};

class WeightTypes : public ::testing::TestWithParam<at::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(All,
                         WeightTypes,
                         ::testing::Values(at::kFloat, at::kBFloat16, at::kHalf, at::kChar),
                         [](const auto& row) { return std::string(c10::toString(row.param)); });

TEST_P(WeightTypes, LinearAgreesWithFloat64) {
  for (const auto& [rows, in, out] : kShapes) {
    const auto x = random_tensor({rows, in}, /*seed=*/1);
    const auto weight = random_weight(out, in, GetParam(), /*seed=*/2);
    EXPECT_TRUE(near_to(linear(kFast, x, weight), at::matmul(x.to(at::kDouble), wide(weight).t()),
                        tolerance_of(GetParam())))
        << rows << " rows, " << in << " to " << out;
  }
}

TEST_P(WeightTypes, ProductsOfNothingAreZeros) {
  for (const int64_t rows : {1, 20}) {
    const auto weight = random_weight(5, 0, GetParam(), /*seed=*/1);
    EXPECT_TRUE(at::equal(linear(kFast, at::zeros({rows, 0}), weight), at::zeros({rows, 5})));
    const auto down = random_weight(3, 5, GetParam(), /*seed=*/2);
    EXPECT_TRUE(at::equal(gated_mlp(kFast, at::zeros({rows, 0}), weight, weight, down),
                          at::zeros({rows, 3})));
    const auto none = random_weight(0, 5, GetParam(), /*seed=*/3);
    EXPECT_EQ(linear(kFast, at::zeros({rows, 5}), none).sizes(), at::IntArrayRef({rows, 0}));
  }
}

TEST_P(WeightTypes, GatedMlpAgreesWithFloat64) {
  for (const auto& [rows, in, out] : kShapes) {
    const auto x = random_tensor({rows, in}, /*seed=*/1);
    const auto gate = random_weight(out, in, GetParam(), /*seed=*/2);
    const auto up = random_weight(out, in, GetParam(), /*seed=*/4);
    const auto down = random_weight(in, out, GetParam(), /*seed=*/6);
    const auto wide_x = x.to(at::kDouble);
    const auto act =
        at::gelu(at::matmul(wide_x, wide(gate).t()), "tanh") * at::matmul(wide_x, wide(up).t());
    EXPECT_TRUE(near_to(gated_mlp(kFast, x, gate, up, down), at::matmul(act, wide(down).t()),
                        tolerance_of(GetParam())))
        << rows << " rows, " << in << " to " << out;
  }
}

TEST_P(WeightTypes, EmbeddingGivesTheRowsThemselves) {
  const auto weight = random_weight(50, 37, GetParam(), /*seed=*/1);
  const auto ids = at::tensor({3L, 49L, 0L, 3L}).view({2, 2});
  const auto want = wide(weight).index_select(0, ids.flatten()).view({2, 2, 37});
  EXPECT_TRUE(near_to(kFast.embedding(ids, weight), want, /*tolerance=*/1e-7));
}

// Rows of both kinds of pass, with any others before and after them.
void expect_rows_alone(const WeightView& weight, int64_t columns) {
  const auto x = random_tensor({70, columns}, /*seed=*/2);
  const WeightView down = random_tensor({3, weight.data.size(0)}, /*seed=*/3);
  for (const auto pass : {Pass::kPrompt, Pass::kDecode}) {
    const auto together = linear(kFast, x, weight, pass);
    const auto mlp = gated_mlp(kFast, x, weight, weight, down, pass);
    for (const auto& [first, count] : std::vector<std::pair<int64_t, int64_t>>{
             {0, 1}, {3, 1}, {69, 1}, {1, 2}, {5, 7}, {2, 8}, {60, 9}, {13, 33}, {0, 64}}) {
      const auto part = x.narrow(0, first, count);
      EXPECT_TRUE(at::equal(linear(kFast, part, weight, pass), together.narrow(0, first, count)))
          << count << " rows from " << first;
      EXPECT_TRUE(at::equal(gated_mlp(kFast, part, weight, weight, down, pass),
                            mlp.narrow(0, first, count)))
          << count << " rows of an MLP from " << first;
    }
  }
}

TEST_P(WeightTypes, ARowDoesNotDependOnTheOthersBesideIt) {
  for (const int64_t columns : {129, 640, 1}) {
    expect_rows_alone(random_weight(67, columns, GetParam(), /*seed=*/1), columns);
  }
  expect_rows_alone(random_weight(2100, 32, GetParam(), /*seed=*/1), 32);
}

TEST(CpuOps, ARowOfFourBitsDoesNotDependOnTheOthersBesideIt) {
  for (const int64_t columns : {32, 640}) {
    const auto quantized = quantize_weight_int4(random_tensor({67, columns}, /*seed=*/1));
    expect_rows_alone({quantized.weight, quantized.weight_scaler}, columns);
  }
}

// Each activation is off by half a step at most: 1 in 65534 of the largest in its block.
TEST(CpuOps, Int8WeightsAgreeWithFloat64AsFarAs16BitsReach) {
  for (const auto& [rows, in, out] : kShapes) {
    const auto x = random_tensor({rows, in}, /*seed=*/1);
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      auto weight = random_weight(out, in, at::kChar, /*seed=*/2);
      weight.scales = weight.scales.to(dtype);
      const auto numbers = wide(weight);
      const auto bound = at::matmul(x.abs().amax(-1, true).expand_as(x).to(at::kDouble) / 65534,
                                    numbers.abs().t());
      const auto error =
          (linear(kFast, x, weight) - at::matmul(x.to(at::kDouble), numbers.t())).abs();
      // And float32's own rounding.
      EXPECT_TRUE((error <= 1.001 * bound + 1e-6).all().item<bool>())
          << rows << " rows, " << in << " to " << out << ", scales of " << dtype;
    }
  }
}

// The worst that a block can hold: all numbers at their limits.
TEST(CpuOps, Int8SumsDoNotOverflow) {
  for (const int64_t rows : {1, 20}) {
    const auto x = at::full({rows, 8192}, 3.0F);
    const WeightView weight(at::full({5, 8192}, -128, at::kChar), at::ones({5}));
    EXPECT_TRUE(
        near_to(linear(kFast, x, weight), at::full({rows, 5}, -3.0 * 128 * 8192, at::kDouble)));
  }
}

TEST(CpuOps, IntegersDoNotHideNaN) {
  const WeightView int8 = random_weight(5, 96, at::kChar, /*seed=*/1);
  const auto quantized = quantize_weight_int4(random_tensor({5, 96}, /*seed=*/2));
  const WeightView int4(quantized.weight, quantized.weight_scaler);
  for (const int64_t rows : {1, 20}) {
    for (const int64_t bad : {0, 50, 95}) {
      auto x = random_tensor({rows, 96}, /*seed=*/3);
      x[0][bad] = std::numeric_limits<float>::quiet_NaN();
      for (const auto& weight : {int8, int4}) {
        const auto y = linear(kFast, x, weight);
        EXPECT_TRUE(y[0].isnan().all().item<bool>()) << rows << " rows, column " << bad;
        EXPECT_EQ(y.isnan().sum().item<int64_t>(), 5);
      }
    }
  }
}

TEST(CpuOps, Int8WeightsRefuseScalesThatDoNotFit) {
  const WeightView weight(at::zeros({4, 32}, at::kChar), at::zeros({3}));
  const auto message = message_of<c10::Error>([&] { linear(kFast, at::zeros({1, 32}), weight); });
  EXPECT_TRUE(contains(message, "wants a float for each row"));
}

// The activations of few rows are rounded to 8 bits: each is off by 1 in 254 of its group's largest
// at most. With many rows both sides are rounded to 12 bits.
TEST(CpuOps, FourBitWeightsAgreeWithTheirNumbersInFloat64) {
  for (const auto& [rows, columns, out] : kShapes) {
    const auto groups = std::min<int64_t>(columns, 9);
    const auto x = random_tensor({rows, groups * WeightView::kGroup}, /*seed=*/1);
    const auto quantized =
        quantize_weight_int4(random_tensor({out, groups * WeightView::kGroup}, /*seed=*/2));
    const WeightView weight(quantized.weight, quantized.weight_scaler);
    const auto numbers = kFast.embedding(at::arange(out), weight).to(at::kDouble);
    const auto got = linear(kFast, x, weight);
    const auto want = at::matmul(x.to(at::kDouble), numbers.t());
    if (rows > cpu::kGemvRows) {
      const auto largest_x = x.abs().amax(-1, true).to(at::kDouble);
      const auto largest_w = numbers.abs().amax(-1, true);
      const auto bound = (at::matmul(largest_x.expand_as(x), numbers.abs().t()) +
                          at::matmul(x.abs().to(at::kDouble), largest_w.expand_as(numbers).t())) /
                         4094;
      EXPECT_TRUE(((got - want).abs() <= 1.01 * bound).all().item<bool>())
          << rows << " rows, " << groups << " groups to " << out;
      EXPECT_TRUE(near_to(got, want, 2e-3));
      continue;
    }
    const auto largest = x.view({rows, groups, WeightView::kGroup}).abs().amax(-1).to(at::kDouble);
    const auto sums = numbers.view({out, groups, WeightView::kGroup}).abs().sum(-1);
    const auto bound = at::matmul(largest / 254, sums.t());
    EXPECT_TRUE(((got - want).abs() <= 1.001 * bound).all().item<bool>())
        << rows << " rows, " << groups << " groups to " << out;
    EXPECT_TRUE(near_to(got, want, 0.1));
  }
}

TEST(CpuOps, ReadsFourBitsAsTheReferencesCallsDo) {
  const auto quantized = quantize_weight_int4(random_tensor({7, 96}, /*seed=*/1));
  const WeightView weight(quantized.weight, quantized.weight_scaler);
  EXPECT_TRUE(
      at::equal(kFast.embedding(at::arange(7), weight), linear(Ops(), at::eye(96), weight).t()));
}

TEST(CpuOps, FourBitWeightsRefuseScalesThatDoNotFit) {
  const WeightView weight(at::zeros({4, 32}, at::kByte), at::zeros({4, 1}, at::kHalf));
  const auto message = message_of<c10::Error>([&] { linear(kFast, at::zeros({1, 64}), weight); });
  EXPECT_TRUE(contains(message, "wants a scale for each 32 numbers"));
}

// Both may use AMX, whose registers each has to set up for itself.
TEST(CpuOps, TakeTurnsWithLibTorchsProducts) {
  const WeightView weight = random_weight(64, 128, at::kBFloat16, /*seed=*/1);
  const auto x = random_tensor({40, 128}, /*seed=*/2, at::kBFloat16);
  const auto fast = linear(kFast, x, weight);
  const auto exact = linear(Ops(), x, weight);
  for (int turn = 0; turn < 3; ++turn) {
    EXPECT_TRUE(at::equal(linear(kFast, x, weight), fast));
    EXPECT_TRUE(at::equal(linear(Ops(), x, weight), exact));
  }
}

TEST(CpuOps, GiveTheSameBitsForAnyNumberOfThreads) {
  const auto weight = random_weight(1000, 129, at::kBFloat16, /*seed=*/1);
  const auto threads = at::get_num_threads();
  for (const int64_t rows : {1, 100}) {
    const auto x = random_tensor({rows, 129}, /*seed=*/2);
    at::set_num_threads(1);
    const auto one = linear(kFast, x, weight);
    for (const int many : {3, 16}) {
      at::set_num_threads(many);
      EXPECT_TRUE(at::equal(linear(kFast, x, weight), one)) << rows << " rows, " << many;
    }
  }
  at::set_num_threads(threads);
}

TEST(CpuOps, KeepTheDtypeOfWhatTheyAreGiven) {
  const auto weight = random_weight(9, 16, at::kBFloat16, /*seed=*/1);
  EXPECT_EQ(linear(kFast, random_tensor({2, 16}, 2, at::kBFloat16), weight).scalar_type(),
            at::kBFloat16);
}

TEST(CpuOps, RefuseFeaturesThatDoNotFit) {
  const auto message = message_of<c10::Error>(
      [] { linear(kFast, at::zeros({2, 5}), WeightView(at::zeros({3, 4}))); });
  EXPECT_TRUE(contains(message, "linear: x is [2, 5], but the weight takes 4 features"));
}

TEST(CpuOps, RefuseToLoseAGradient) {
  const auto x = at::ones({1, 8}).requires_grad_();
  const auto weight = at::ones({3, 8});
  const auto message = message_of<c10::Error>([&] { linear(kFast, x, weight); });
  EXPECT_TRUE(contains(message, "a tensor requires a gradient"));
  EXPECT_THROW(linear(kFast, at::ones({1, 8}), weight.clone().requires_grad_()), c10::Error);
  EXPECT_THROW(kFast.rms_norm(x, {at::ones({8}), 1e-6, true}), c10::Error);
  EXPECT_THROW(kFast.rms_norm(x.detach(), {at::ones({8}).requires_grad_(), 1e-6, true}),
               c10::Error);
  const at::NoGradGuard no_grad;
  linear(kFast, x, weight);
}

TEST(CpuOps, RefuseATokenThatIsNotInTheVocabulary) {
  const auto message = message_of<c10::IndexError>(
      [] { kFast.embedding(at::tensor({4L}), WeightView(at::zeros({4, 4}))); });
  EXPECT_TRUE(contains(message, "token id 4 is not below the vocabulary's size, 4"));
}

TEST(CpuOps, RmsNormAgreesWithFloat64) {
  for (const int64_t size : {1, 7, 8, 33, 640}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const auto x = random_tensor({20, size}, /*seed=*/1);
      const auto residual = random_tensor({20, size}, /*seed=*/2);
      const auto weight = random_tensor({size}, /*seed=*/3, dtype);
      const auto want =
          testing::oracle::rms_norm(x.to(at::kDouble), weight.to(at::kDouble), /*eps=*/1e-6);
      const NormWeight norm{weight, 1e-6, /*add_unit_offset=*/true};
      EXPECT_TRUE(near_to(kFast.rms_norm(x, norm), want, 1e-6)) << size;
      EXPECT_TRUE(near_to(kFast.add_rms_norm(residual, x, norm), residual + want, 1e-6)) << size;
    }
  }
}

TEST(CpuOps, LargeGatesDoNotOverflow) {
  const auto x = at::tensor({1.0F, -1.0F}).view({2, 1});
  const WeightView gate(at::full({4, 1}, 1e4F));
  const WeightView one(at::ones({4, 1}));
  const auto out = gated_mlp(kFast, x, gate, one, WeightView(at::ones({1, 4})));
  EXPECT_TRUE(near_to(out, at::tensor({4e4, 0.0}, at::kDouble).view({2, 1})));
}

class Sample : public ::testing::Test {
 protected:
  static SamplingParams params(int64_t rows,
                               std::optional<double> temperature,
                               double top_p,
                               int64_t top_k) {
    SamplingParams given{{}, at::full({rows}, top_p), at::full({rows}, top_k, at::kLong)};
    if (temperature) given.temperatures = at::full({rows}, *temperature);
    return given;
  }

  at::Tensor hidden_ = random_tensor({3, 24}, /*seed=*/1);
  at::Tensor embedding_ = random_tensor({70000, 24}, /*seed=*/2);
};

TEST_F(Sample, TakesTheLikeliestToken) {
  const auto [tokens, logits] = kFast.sample(hidden_, embedding_, {}, 30.0, params(3, {}, 1.0, 1));
  const auto want = at::tanh(at::matmul(hidden_, embedding_.t()).to(at::kDouble) / 30.0) * 30.0;
  EXPECT_TRUE(near_to(logits, want));
  EXPECT_TRUE(at::equal(tokens, logits.argmax(-1)));
}

TEST_F(Sample, TakesTheFirstOfEqualLogits) {
  const auto same = at::ones({1000, 24});
  const auto [tokens, logits] = kFast.sample(hidden_, same, {}, {}, params(3, {}, 1.0, 1));
  EXPECT_TRUE(at::equal(tokens, at::zeros({3}, at::kLong)));
}

TEST_F(Sample, DrawsWhatTheReferenceDrawsFromTheSameSeed) {
  const struct {
    double temperature, top_p;
    int64_t top_k;
  } rows[] = {{1.0, 0.95, 64}, {0.3, 0.5, 5}, {2.0, 1.0, 70000}, {1.0, 0.0, 64}, {5.0, 0.9, 1000}};
  for (const auto& [temperature, top_p, top_k] : rows) {
    const auto given = params(3, temperature, top_p, top_k);
    at::manual_seed(7);
    std::vector<at::Tensor> got, want;
    for (int i = 0; i < 8; ++i) {
      got.push_back(kFast.sample(hidden_, embedding_, {}, {}, given).first);
    }
    at::manual_seed(7);
    for (int i = 0; i < 8; ++i) {
      want.push_back(Ops().sample(hidden_, embedding_, {}, {}, given).first);
    }
    EXPECT_TRUE(at::equal(at::cat(got), at::cat(want)))
        << "temperature " << temperature << ", top_p " << top_p << ", top_k " << top_k;
  }
}

TEST_F(Sample, AddsTheBias) {
  const auto bias = random_tensor({70000}, /*seed=*/3);
  const auto logits = kFast.sample(hidden_, embedding_, bias, {}, params(3, {}, 1.0, 1)).second;
  EXPECT_TRUE(near_to(logits, at::matmul(hidden_, embedding_.t()).to(at::kDouble) + bias));
}

TEST_F(Sample, RefusesNaN) {
  const auto nothing = at::full({1000, 24}, std::numeric_limits<float>::quiet_NaN());
  const auto message = message_of<c10::Error>(
      [&] { kFast.sample(hidden_, nothing, {}, {}, params(3, 1.0, 0.9, 5)); });
  EXPECT_TRUE(contains(message, "the logits hold NaN"));
}

// The instruction sets are compiled from one source; each has to be tried.
TEST(Kernels, AreThoseOfTheMachineUnlessAskedOtherwise) {
  const auto* const asked = std::getenv("ATEN_CPU_CAPABILITY");
  const std::string capability = asked == nullptr ? "" : asked;
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512vnni");
  const bool amx = avx512 && __builtin_cpu_supports("amx-bf16");
  const std::string name = cpu::kernels().name;
  if (capability == "default" || !avx2) {
    EXPECT_EQ(name, "portable");
  } else if (capability == "avx2" || !avx512) {
    EXPECT_EQ(name, "AVX2");
  } else if (capability == "avx512" || !amx) {
    EXPECT_EQ(name, "AVX-512");
  } else if (name != "AMX") {
    GTEST_SKIP() << "the kernel does not let this process use AMX; these tests ran " << name;
  }
  if ((capability == "avx2" && !avx2) || (capability == "avx512" && !avx512)) {
    GTEST_SKIP() << "this machine has no " << capability << "; these tests ran " << name;
  }
}

}  // namespace
}  // namespace gemma
