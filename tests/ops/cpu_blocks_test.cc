#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/checkpoint/gguf_blocks.h>
#include <gemma/ops/cpu/cpu_ops.h>

// Products with weights in the blocks of a GGUF, against their numbers as ggml computes them.
namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::near_to;
using testing::random_tensor;

const CpuOps kFast;

constexpr Encoding kEncodings[] = {Encoding::kQ4_0, Encoding::kQ4_1, Encoding::kQ5_0,
                                   Encoding::kQ5_1, Encoding::kQ8_0, Encoding::kQ4K,
                                   Encoding::kQ5K,  Encoding::kQ6K,  Encoding::kIq4Nl};

bool is_large(Encoding encoding) { return block_format(encoding).elements == 256; }

// Where the block has its scales of 16 bits.
std::vector<int64_t> places_of_halves(Encoding encoding) {
  switch (encoding) {
    case Encoding::kQ4_1:
    case Encoding::kQ5_1:
    case Encoding::kQ4K:
    case Encoding::kQ5K:
      return {0, 2};
    case Encoding::kQ6K:
      return {208};
    default:
      return {0};
  }
}

// `rows` rows of random blocks: any bits, with scales that are numbers.
at::Tensor random_blocks(Encoding encoding, int64_t rows, int64_t columns, uint64_t seed) {
  const auto& format = block_format(encoding);
  const auto count = rows * columns / static_cast<int64_t>(format.elements);
  const auto size = static_cast<int64_t>(format.bytes);
  auto bytes = (random_tensor({count, size}, seed).abs() * 1000).to(at::kInt).to(at::kByte);
  for (const auto place : places_of_halves(encoding)) {
    const auto halves = random_tensor({count, 1}, seed + 1 + static_cast<uint64_t>(place)) / 64;
    bytes.narrow(1, place, 2).copy_(halves.to(at::kHalf).view(at::kByte));
  }
  return bytes.flatten();
}

// Parts of `rows` rows each, in some formats.
WeightView random_weight(const std::vector<Encoding>& encodings,
                         int64_t rows,
                         int64_t columns,
                         at::ScalarType dtype = at::kFloat) {
  BlockLayout layout{.parts = {}, .columns = columns, .dtype = dtype};
  std::vector<at::Tensor> bytes;
  for (const auto encoding : encodings) {
    layout.parts.push_back({encoding, rows});
    bytes.push_back(random_blocks(encoding, rows, columns, /*seed=*/10 * bytes.size()));
  }
  return {at::cat(bytes), std::make_shared<const BlockLayout>(layout)};
}

at::Tensor numbers_of(const WeightView& weight) { return dequantize(weight).to(at::kDouble); }

std::string name(Encoding encoding) { return std::string(block_format(encoding).name); }

TEST(CpuBlocks, ProductsAgreeWithTheirNumbersInFloat64) {
  for (const auto encoding : kEncodings) {
    for (const int64_t columns : {32, 96, 256, 640, 768}) {
      if (is_large(encoding) && columns % 256 != 0) continue;
      const auto weight = random_weight({encoding}, /*rows=*/37, columns);
      for (const int64_t rows : {1, 2, 3, 5, 8, 9, 20, 70}) {
        const auto x = random_tensor({rows, columns}, /*seed=*/3);
        const auto want = at::matmul(x.to(at::kDouble), numbers_of(weight).t());
        EXPECT_TRUE(near_to(kFast.linear(x, weight, Pass::kAny), want, 1e-4))
            << name(encoding) << ", " << rows << " rows of " << columns;
      }
    }
  }
}

TEST(CpuBlocks, PartsOfSeveralFormatsAreOneMatrix) {
  const auto weight =
      random_weight({Encoding::kQ5_0, Encoding::kQ8_0, Encoding::kQ6K}, /*rows=*/21, 256);
  for (const int64_t rows : {1, 7, 30}) {
    const auto x = random_tensor({rows, 256}, /*seed=*/3);
    const auto want = at::matmul(x.to(at::kDouble), numbers_of(weight).t());
    EXPECT_TRUE(near_to(kFast.linear(x, weight, Pass::kAny), want, 1e-4)) << rows << " rows";
  }
}

TEST(CpuBlocks, RowsAreReadAsGgmlDoes) {
  for (const auto encoding : kEncodings) {
    const auto weight = random_weight({encoding, Encoding::kQ8_0}, /*rows=*/5, /*columns=*/512);
    const auto got = kFast.embedding(at::arange(10), weight);
    EXPECT_TRUE(near_to(got, numbers_of(weight), 1e-6)) << name(encoding);
  }
}

// A row's bits are the same alone and beside others, on any number of threads.
TEST(CpuBlocks, ARowIsTheSameAloneAndInABatch) {
  const auto threads = at::get_num_threads();
  for (const auto encoding : kEncodings) {
    const auto weight = random_weight({encoding}, /*rows=*/133, /*columns=*/512);
    const auto x = random_tensor({19, 512}, /*seed=*/3);
    const auto together = kFast.linear(x, weight, Pass::kDecode);
    at::set_num_threads(3);
    for (int64_t i = 0; i < x.size(0); ++i) {
      const auto alone = kFast.linear(x.narrow(0, i, 1), weight, Pass::kDecode);
      EXPECT_TRUE(at::equal(alone[0], together[i])) << name(encoding) << ", row " << i;
    }
    at::set_num_threads(threads);
  }
}

// The largest numbers that there are: the sums of large blocks are near the limit of 32 bits.
TEST(CpuBlocks, SumsDoNotOverflow) {
  for (const auto encoding : kEncodings) {
    const auto& format = block_format(encoding);
    for (const int value : {0x00, 0x80, 0xff, 0x7f}) {
      auto bytes = at::full({static_cast<int64_t>(format.bytes)}, value, at::kByte);
      for (const auto place : places_of_halves(encoding)) {
        bytes.narrow(0, place, 2).copy_(at::full({1}, 0.5, at::kHalf).view(at::kByte));
      }
      const auto columns = static_cast<int64_t>(format.elements);
      BlockLayout layout{.parts = {{encoding, 1}}, .columns = columns, .dtype = at::kFloat};
      const WeightView weight(bytes, std::make_shared<const BlockLayout>(layout));
      const auto numbers = numbers_of(weight);
      for (const double sign : {-1.0, 1.0}) {
        const auto x = (numbers.sgn() * sign).to(at::kFloat);
        const auto want = at::matmul(x.to(at::kDouble), numbers.t());
        EXPECT_TRUE(near_to(kFast.linear(x, weight, Pass::kDecode), want, 1e-5))
            << name(encoding) << ", all bytes " << value;
      }
    }
  }
}

TEST(CpuBlocks, NaNStaysInItsRow) {
  for (const auto encoding : {Encoding::kQ4_1, Encoding::kQ4K}) {
    const auto weight = random_weight({encoding}, /*rows=*/9, /*columns=*/256);
    auto x = random_tensor({4, 256}, /*seed=*/3);
    x[1][40] = std::numeric_limits<float>::quiet_NaN();
    const auto got = kFast.linear(x, weight, Pass::kDecode);
    EXPECT_TRUE(got[1].isnan().all().item<bool>()) << name(encoding);
    EXPECT_EQ(got.isnan().sum().item<int64_t>(), 9) << name(encoding);
  }
}

TEST(CpuBlocks, AGatedMlpTakesWeightsOfSeveralKinds) {
  const auto x = random_tensor({3, 256}, /*seed=*/3);
  const auto gate = random_weight({Encoding::kQ4K}, /*rows=*/64, 256);
  const auto blocks = random_weight({Encoding::kQ6K}, /*rows=*/64, 256);
  const auto down = random_weight({Encoding::kQ8_0}, /*rows=*/256, 64);
  for (const WeightView& up : {blocks, WeightView(random_tensor({64, 256}, /*seed=*/4))}) {
    const auto floats = [](const WeightView& weight) { return WeightView(dequantize(weight)); };
    const auto want = Ops().gated_mlp(x, floats(gate), floats(up), floats(down), Pass::kAny);
    for (const auto pass : {Pass::kDecode, Pass::kPrompt}) {
      EXPECT_TRUE(near_to(kFast.gated_mlp(x, gate, up, down, pass), want, 1e-4));
    }
  }
}

// What exact numerics compute is what they compute with the numbers, in the model's dtype.
TEST(CpuBlocks, ExactNumericsTakeTheNumbersOut) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto weight =
        random_weight({Encoding::kQ4K, Encoding::kQ8_0}, /*rows=*/16, /*columns=*/256, dtype);
    const WeightView numbers(dequantize(weight));
    EXPECT_EQ(numbers.data.scalar_type(), dtype);
    const auto x = random_tensor({3, 256}, /*seed=*/3, dtype);
    EXPECT_TRUE(at::equal(Ops().linear(x, weight, Pass::kAny), at::linear(x, numbers.data)));
    const auto ids = at::tensor({31, 0, 16, 15}).view({2, 2});
    EXPECT_TRUE(at::equal(Ops().embedding(ids, weight), at::embedding(numbers.data, ids)));
  }
}

TEST(CpuBlocks, RefusesBytesThatDoNotFit) {
  auto weight = random_weight({Encoding::kQ8_0}, /*rows=*/4, /*columns=*/64);
  weight.data = weight.data.narrow(0, 0, 100);
  const auto message =
      message_of<c10::Error>([&] { kFast.linear(at::zeros({1, 64}), weight, Pass::kAny); });
  EXPECT_TRUE(contains(message, "a weight in blocks has 100 bytes, but its layout says 272"))
      << message;
}

}  // namespace
}  // namespace gemma
