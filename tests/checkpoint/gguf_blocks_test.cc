#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <c10/util/Half.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/checkpoint/gguf_blocks.h>

// Every type against ggml's own reader in Python: tests/python/test_gguf.py. Here, blocks that can
// be checked by hand.
namespace gemma {
namespace {

using testing::contains;
using testing::message_of;

void put_half(std::vector<std::byte>& block, size_t at, float value) {
  const uint16_t bits = c10::Half(value).x;
  std::memcpy(block.data() + at, &bits, sizeof(bits));
}

std::vector<float> numbers_of(Encoding encoding, const std::vector<std::byte>& block) {
  std::vector<float> values(block_format(encoding).elements);
  dequantize(encoding, block, values);
  return values;
}

std::vector<std::byte> block_of(Encoding encoding, int fill) {
  return std::vector<std::byte>(block_format(encoding).bytes, static_cast<std::byte>(fill));
}

TEST(GgufBlocks, ReadsTheFirstSixteenFromLowerHalvesOfBytes) {
  auto block = block_of(Encoding::kQ4_0, 0x91);
  put_half(block, 0, 0.5F);
  const auto values = numbers_of(Encoding::kQ4_0, block);
  EXPECT_EQ(values[0], -3.5F);  // (1 - 8) / 2
  EXPECT_EQ(values[15], -3.5F);
  EXPECT_EQ(values[16], 0.5F);  // (9 - 8) / 2
}

TEST(GgufBlocks, AddsTheFifthBitOfEachNumber) {
  auto block = block_of(Encoding::kQ5_1, 0);
  put_half(block, 0, 2);
  put_half(block, 2, -1);
  block[4] = std::byte{1};     // Of number 0.
  block[7] = std::byte{0x80};  // Of number 31.
  block[8] = std::byte{0x03};
  const auto values = numbers_of(Encoding::kQ5_1, block);
  EXPECT_EQ(values[0], 37);  // (16 + 3) * 2 - 1
  EXPECT_EQ(values[1], -1);
  EXPECT_EQ(values[31], 31);  // 16 * 2 - 1
}

TEST(GgufBlocks, PutsUpperBitsOfScalesTogether) {
  auto block = block_of(Encoding::kQ4K, 0);
  put_half(block, 0, 1);
  put_half(block, 2, 1);
  block[4 + 3] = std::byte{0xc5};        // Scale of group 3: 5; bits 4 and 5 of that of group 7.
  block[4 + 7] = std::byte{0x42};        // Least of group 3: 2; bit 4 of that of group 7.
  block[4 + 11] = std::byte{0x69};       // Lower bits of group 7: scale 9, least 6.
  block[16 + 32 + 4] = std::byte{0x30};  // Number 4 of group 3.
  block[16 + 96 + 4] = std::byte{0x20};  // Number 4 of group 7.
  const auto values = numbers_of(Encoding::kQ4K, block);
  EXPECT_EQ(values[3 * 32 + 4], 3 * 5 - 2);
  EXPECT_EQ(values[7 * 32 + 4], 2 * (9 + 48) - (6 + 16));
  EXPECT_EQ(values[7 * 32], -(6 + 16));
}

TEST(GgufBlocks, RefusesPartsOfBlocksAndPlainTensors) {
  std::vector<std::byte> bytes(35);
  std::vector<float> values(32);
  EXPECT_TRUE(contains(
      message_of<std::invalid_argument>([&] { dequantize(Encoding::kQ8_0, bytes, values); }),
      "Q8_0: 35 bytes and 32 numbers are not as many blocks"));
  EXPECT_THROW(block_format(Encoding::kPlain), std::invalid_argument);
}

TEST(GgufBlocks, QuantizesTheLargestNumberTo127) {
  std::vector<float> values(64, 0);
  values[1] = -2.54F;
  values[2] = 1.27F;
  std::vector<std::byte> blocks(68);
  quantize_q8_0(values, blocks);
  EXPECT_EQ(static_cast<int8_t>(blocks[3]), -127);
  EXPECT_EQ(static_cast<int8_t>(blocks[4]), 64);  // 63.5, away from zero.
  EXPECT_EQ(blocks[34], std::byte{0});            // A block of zeros.
  std::vector<float> back(64);
  dequantize(Encoding::kQ8_0, blocks, back);
  EXPECT_NEAR(back[1], -2.54, 1e-3);
  EXPECT_EQ(back[40], 0);
}

TEST(GgufBlocks, QuantizesNumbersTooSmallForAScaleToZero) {
  std::vector<float> values(32, std::numeric_limits<float>::denorm_min());
  std::vector<std::byte> blocks(34, std::byte{1});
  quantize_q8_0(values, blocks);
  EXPECT_EQ(blocks, std::vector<std::byte>(34));
}

TEST(GgufBlocks, RefusesNumbersThatQ8_0CannotHold) {
  for (const float bad : {NAN, INFINITY, -INFINITY, 1e7F}) {
    std::vector<float> values(32, 1);
    values[31] = bad;
    std::vector<std::byte> blocks(34);
    EXPECT_THROW(quantize_q8_0(values, blocks), std::invalid_argument) << bad;
  }
}

}  // namespace
}  // namespace gemma
