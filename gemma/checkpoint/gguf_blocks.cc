#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include <c10/util/Half.h>
#include <fmt/format.h>

#include <gemma/checkpoint/gguf_blocks.h>

// ggml-quants.c: dequantize_row_*. Compiled without contraction into fused multiply-adds, which
// round once where ggml rounds twice.
namespace gemma {
namespace {

constexpr BlockFormat kFormats[] = {
    {"Q4_0", 32, 18},   {"Q4_1", 32, 20},   {"Q5_0", 32, 22},
    {"Q5_1", 32, 24},   {"Q8_0", 32, 34},   {"Q4_K", 256, 144},
    {"Q5_K", 256, 176}, {"Q6_K", 256, 210}, {"IQ4_NL", 32, 18},
};

float half_at(const std::byte* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return static_cast<float>(c10::Half(bits, c10::Half::from_bits()));
}

unsigned byte_at(const std::byte* bytes, size_t i) { return std::to_integer<unsigned>(bytes[i]); }

unsigned low(const std::byte* bytes, size_t i) { return byte_at(bytes, i) & 0xf; }
unsigned high(const std::byte* bytes, size_t i) { return byte_at(bytes, i) >> 4; }

int signed_at(const std::byte* bytes, size_t i) {
  return static_cast<int8_t>(std::to_integer<uint8_t>(bytes[i]));
}

// The blocks of 32: element i and element i + 16 share a byte.

void q4_0(const std::byte* block, float* out) {
  const float scale = half_at(block);
  for (size_t i = 0; i < 16; ++i) {
    out[i] = static_cast<float>(static_cast<int>(low(block + 2, i)) - 8) * scale;
    out[i + 16] = static_cast<float>(static_cast<int>(high(block + 2, i)) - 8) * scale;
  }
}

void q4_1(const std::byte* block, float* out) {
  const float scale = half_at(block), least = half_at(block + 2);
  for (size_t i = 0; i < 16; ++i) {
    out[i] = static_cast<float>(low(block + 4, i)) * scale + least;
    out[i + 16] = static_cast<float>(high(block + 4, i)) * scale + least;
  }
}

// The fifth bits of all 32.
struct FifthBits {
  explicit FifthBits(const std::byte* bytes) { std::memcpy(&bits, bytes, sizeof(bits)); }
  unsigned operator[](size_t i) const { return (bits >> i & 1U) << 4; }
  uint32_t bits = 0;
};

void q5_0(const std::byte* block, float* out) {
  const float scale = half_at(block);
  const FifthBits fifth(block + 2);
  for (size_t i = 0; i < 16; ++i) {
    out[i] = static_cast<float>(static_cast<int>(low(block + 6, i) | fifth[i]) - 16) * scale;
    out[i + 16] =
        static_cast<float>(static_cast<int>(high(block + 6, i) | fifth[i + 16]) - 16) * scale;
  }
}

void q5_1(const std::byte* block, float* out) {
  const float scale = half_at(block), least = half_at(block + 2);
  const FifthBits fifth(block + 4);
  for (size_t i = 0; i < 16; ++i) {
    out[i] = static_cast<float>(low(block + 8, i) | fifth[i]) * scale + least;
    out[i + 16] = static_cast<float>(high(block + 8, i) | fifth[i + 16]) * scale + least;
  }
}

void q8_0(const std::byte* block, float* out) {
  const float scale = half_at(block);
  for (size_t i = 0; i < 32; ++i) out[i] = static_cast<float>(signed_at(block + 2, i)) * scale;
}

// ggml-common.h: kvalues_iq4nl.
constexpr std::array<int, 16> kIq4NlValues = {-127, -104, -83, -65, -49, -35, -22, -10,
                                              1,    13,   25,  38,  53,  69,  89,  113};

void iq4_nl(const std::byte* block, float* out) {
  const float scale = half_at(block);
  for (size_t i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(kIq4NlValues[low(block + 2, i)]);
    out[i + 16] = scale * static_cast<float>(kIq4NlValues[high(block + 2, i)]);
  }
}

// The blocks of 256: eight groups of 32, each with a scale and a least number of 6 bits, in 12
// bytes. Of the last four groups, the upper two bits stand above those of the first four.
struct GroupScale {
  float scale, least;
};

GroupScale group_scale(const std::byte* block, size_t group) {
  const std::byte* const packed = block + 4;
  const float scale = half_at(block), least = half_at(block + 2);
  const auto scaled = [](float factor, unsigned bits) { return factor * static_cast<float>(bits); };
  if (group < 4) {
    return {scaled(scale, byte_at(packed, group) & 0x3f),
            scaled(least, byte_at(packed, group + 4) & 0x3f)};
  }
  return {scaled(scale, low(packed, group + 4) | byte_at(packed, group - 4) >> 6 << 4),
          scaled(least, high(packed, group + 4) | byte_at(packed, group) >> 6 << 4)};
}

// Groups 2g and 2g + 1 share 32 bytes, as lower and upper halves. `fifth` gives a bit of group and
// number, in its place.
template <typename Fifth>
void groups_of_nibbles(const std::byte* block, const std::byte* nibbles, Fifth fifth, float* out) {
  for (size_t group = 0; group < 8; ++group) {
    const auto [scale, least] = group_scale(block, group);
    const std::byte* const bytes = nibbles + group / 2 * 32;
    for (size_t i = 0; i < 32; ++i) {
      const unsigned bits = (group % 2 == 0 ? low(bytes, i) : high(bytes, i)) | fifth(group, i);
      out[group * 32 + i] = scale * static_cast<float>(bits) - least;
    }
  }
}

void q4_k(const std::byte* block, float* out) {
  groups_of_nibbles(block, block + 16, [](size_t, size_t) { return 0U; }, out);
}

void q5_k(const std::byte* block, float* out) {
  const auto fifth = [block](size_t group, size_t i) {
    return (byte_at(block + 16, i) >> group & 1U) << 4;
  };
  groups_of_nibbles(block, block + 48, fifth, out);
}

// Two halves of 128, each of four groups of 32 numbers of 4 bits (64 bytes) and 2 bits (32 bytes),
// and a scale of 8 bits for each 16 numbers.
void q6_k(const std::byte* block, float* out) {
  const float scale = half_at(block + 208);
  for (size_t half = 0; half < 2; ++half) {
    const std::byte* const lower = block + half * 64;
    const std::byte* const upper = block + 128 + half * 32;
    const std::byte* const scales = block + 192 + half * 8;
    for (size_t group = 0; group < 4; ++group) {
      for (size_t i = 0; i < 32; ++i) {
        const size_t at = group % 2 * 32 + i;
        const unsigned four = group < 2 ? low(lower, at) : high(lower, at);
        const unsigned two = byte_at(upper, i) >> 2 * group & 3U;
        const float factor = scale * static_cast<float>(signed_at(scales, group * 2 + i / 16));
        out[half * 128 + group * 32 + i] =
            factor * static_cast<float>(static_cast<int>(four | two << 4) - 32);
      }
    }
  }
}

using Dequantize = void (*)(const std::byte* block, float* out);
constexpr Dequantize kDequantize[] = {q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k, iq4_nl};

// Of the tables.
size_t index_of(Encoding encoding) {
  if (encoding == Encoding::kPlain) {
    throw std::invalid_argument("block_format: a plain tensor has no blocks");
  }
  return static_cast<size_t>(encoding) - 1;
}

// How many blocks both are.
size_t count_blocks(const BlockFormat& format, size_t bytes, size_t elements) {
  const size_t count = bytes / format.bytes;
  if (count * format.bytes != bytes || count * format.elements != elements) {
    throw std::invalid_argument(fmt::format(
        "{}: {} bytes and {} numbers are not as many blocks: a block has {} bytes and {} numbers",
        format.name, bytes, elements, format.bytes, format.elements));
  }
  return count;
}

}  // namespace

const BlockFormat& block_format(Encoding encoding) { return kFormats[index_of(encoding)]; }

void dequantize(Encoding encoding, std::span<const std::byte> blocks, std::span<float> values) {
  const auto& format = block_format(encoding);
  const Dequantize dequantize_block = kDequantize[index_of(encoding)];
  const size_t count = count_blocks(format, blocks.size(), values.size());
  for (size_t i = 0; i < count; ++i) {
    dequantize_block(blocks.data() + i * format.bytes, values.data() + i * format.elements);
  }
}

void quantize_q8_0(std::span<const float> values, std::span<std::byte> blocks) {
  const auto& format = block_format(Encoding::kQ8_0);
  const size_t count = count_blocks(format, blocks.size(), values.size());
  for (size_t b = 0; b < count; ++b) {
    const auto numbers = values.subspan(b * format.elements, format.elements);
    float largest = 0;
    for (const float number : numbers) {
      if (!std::isfinite(number)) throw std::invalid_argument("Q8_0: a number is NaN or infinite");
      largest = std::max(largest, std::abs(number));
    }
    const float scale = largest / 127;
    const c10::Half half(scale);
    if (!std::isfinite(static_cast<float>(half))) {
      throw std::invalid_argument(fmt::format("Q8_0: {} is too large a number", largest));
    }
    // As 1 / scale overflows, the scale has long been 0 in 16 bits.
    const float inverse = std::isfinite(1 / scale) ? 1 / scale : 0;
    std::byte* const block = blocks.data() + b * format.bytes;
    std::memcpy(block, &half.x, sizeof(half.x));
    for (size_t i = 0; i < numbers.size(); ++i) {
      const auto rounded = static_cast<int8_t>(std::round(numbers[i] * inverse));
      block[2 + i] = static_cast<std::byte>(rounded);
    }
  }
}

}  // namespace gemma
