#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <gemma/checkpoint/encoding.h>

namespace gemma {

/// What a block format of GGUF is called there, and how much is in a block.
struct BlockFormat {
  std::string_view name;
  uint64_t elements;
  uint64_t bytes;
};

/// Throws std::invalid_argument for Encoding::kPlain.
const BlockFormat& block_format(Encoding encoding);

/// The numbers of whole blocks, bit for bit as ggml computes them (NaNs as any NaN). `blocks` has
/// `bytes` and `values` has `elements` for each block; std::invalid_argument if not.
void dequantize(Encoding encoding, std::span<const std::byte> blocks, std::span<float> values);

/// Blocks of Q8_0 from floats, bit for bit as ggml makes them: a block's largest number becomes 127
/// or -127. `values` has 32 floats and `blocks` 34 bytes for each block; std::invalid_argument if
/// not, or if a number is NaN, infinite or beyond 8 million.
void quantize_q8_0(std::span<const float> values, std::span<std::byte> blocks);

}  // namespace gemma
