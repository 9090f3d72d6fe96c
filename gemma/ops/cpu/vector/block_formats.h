#pragma once

#include <gemma/ops/cpu/vector/simd.h>

// The block formats of GGUF: how a chunk of a row becomes integers and scales. The formats
// themselves are ggml's (ggml-common.h, ggml-quants.c); gemma/checkpoint/gguf_blocks.cc reads them
// number by number.
namespace gemma::cpu {
namespace {

// Columns that are multiplied by one scale of the activations: a block of the large formats, up to
// eight of the small ones.
constexpr int64_t kChunk = 256;
constexpr int64_t kChunkGroups = kChunk / kGroup;

// What a chunk has beside its integers. Its numbers are integer * scale + offset, with the scale
// and the offset of their group.
struct ChunkNumbers {
  // Of a small format for each group; of a large one the first is for all, as what tells groups
  // apart is part of the integers.
  float scales[kChunkGroups];
  // Filled up with zeros; not set where a format has none.
  float offsets[kChunkGroups < kLanes ? kLanes : kChunkGroups];
  // Of a large format: what each 16 columns are multiplied by, twice in 16 bits.
  int32_t factors[kChunk / 16];
};

inline const uint8_t* bytes_at(const std::byte* from, int64_t offset) {
  return reinterpret_cast<const uint8_t*>(from + offset);
}

inline float half_at(const std::byte* from) {
  Float16 half;
  std::memcpy(&half, from, sizeof(half));
  return to_float(half);
}

// A small format: blocks of kGroup columns that begin with a scale of 16 bits.
template <int64_t kSize>
struct SmallBlocks {
  static constexpr bool kIsLarge = false;
  static constexpr bool kHasOffsets = false;
  static constexpr int64_t kColumns = kGroup;
  static constexpr int64_t kBytes = kSize;

  static void describe(const std::byte* chunk, int64_t groups, ChunkNumbers& numbers) {
    gather<kSize>(chunk, groups, numbers.scales);
  }
};

// The same with a number of 16 bits behind the scale that is added to all.
template <int64_t kSize>
struct SmallBlocksWithOffsets : SmallBlocks<kSize> {
  static constexpr bool kHasOffsets = true;

  static void describe(const std::byte* chunk, int64_t groups, ChunkNumbers& numbers) {
    SmallBlocks<kSize>::describe(chunk, groups, numbers);
    float offsets[kChunkGroups];
    gather<kSize>(chunk + 2, groups, offsets);
    std::memset(numbers.offsets, 0, sizeof(numbers.offsets));
    std::memcpy(numbers.offsets, offsets, groups * sizeof(float));
  }
};

struct Q8_0 : SmallBlocks<34> {
  static Pairs integers(const std::byte* chunk,
                        int64_t group,
                        int64_t part,
                        const ChunkNumbers& /*numbers*/) {
    return load_pairs(
        reinterpret_cast<const int8_t*>(chunk + group * kBytes + 2 + part * 2 * kLanes));
  }
};

struct Q4_0 : SmallBlocks<18> {
  static Pairs integers(const std::byte* chunk,
                        int64_t group,
                        int64_t part,
                        const ChunkNumbers& /*numbers*/) {
    return load_nibbles(bytes_at(chunk, group * kBytes + 2), part) - 8;
  }
};

struct Iq4Nl : SmallBlocks<18> {
  static Pairs integers(const std::byte* chunk,
                        int64_t group,
                        int64_t part,
                        const ChunkNumbers& /*numbers*/) {
    alignas(16) static constexpr int8_t kValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                       1,    13,   25,  38,  53,  69,  89,  113};
    return load_nibbles(bytes_at(chunk, group * kBytes + 2), kValues, part);
  }
};

struct Q4_1 : SmallBlocksWithOffsets<20> {
  static Pairs integers(const std::byte* chunk,
                        int64_t group,
                        int64_t part,
                        const ChunkNumbers& /*numbers*/) {
    return load_nibbles(bytes_at(chunk, group * kBytes + 4), part);
  }
};

// All bits of the numbers whose fifth bit is set.
inline Pairs fifth_bits(const std::byte* from, int64_t part) {
  uint32_t fifth;
  std::memcpy(&fifth, from, sizeof(fifth));
  return spread_bits(fifth, part);
}

struct Q5_0 : SmallBlocks<22> {
  static Pairs integers(const std::byte* chunk,
                        int64_t group,
                        int64_t part,
                        const ChunkNumbers& /*numbers*/) {
    const auto* const block = chunk + group * kBytes;
    // 16 less: the number itself where the bit is set.
    return load_nibbles(bytes_at(block, 6), part) | (~fifth_bits(block + 2, part) & -16);
  }
};

struct Q5_1 : SmallBlocksWithOffsets<24> {
  static Pairs integers(const std::byte* chunk,
                        int64_t group,
                        int64_t part,
                        const ChunkNumbers& /*numbers*/) {
    const auto* const block = chunk + group * kBytes;
    return load_nibbles(bytes_at(block, 8), part) | (fifth_bits(block + 4, part) & 16);
  }
};

// kLanes integers, twice in 16 bits.
inline void store_factors(Ints from, int32_t* to) {
  const auto twice = (from & 0xffff) | (from << 16);
  std::memcpy(to, &twice, sizeof(twice));
}

using Sixteen = uint64_t __attribute__((vector_size(16)));

// Eight bytes as kLanes of them from the i-th on, zeros behind.
inline Ints load_eight(uint64_t bytes, int64_t i) {
  const Sixteen all = {bytes, 0};
  return load_bytes(reinterpret_cast<const uint8_t*>(&all) + i);
}

// Q4_K and Q5_K: two scales of 16 bits, and for each group a scale and a least number of 6 bits, in
// 12 bytes. Of the last four groups, the upper two bits stand above those of the first four.
struct LargeBlocksWithOffsets {
  static constexpr bool kIsLarge = true;
  static constexpr bool kHasOffsets = true;
  static constexpr int64_t kColumns = kChunk;

  static void describe(const std::byte* chunk, int64_t /*groups*/, ChunkNumbers& numbers) {
    numbers.scales[0] = half_at(chunk);
    const auto least = half_at(chunk + 2);
    uint32_t words[3];
    std::memcpy(words, chunk + 4, sizeof(words));
    const auto join = [](uint32_t first, uint32_t last) { return uint64_t{last} << 32 | first; };
    const auto upper = [](uint32_t word) { return (word >> 6 & 0x03030303U) << 4; };
    const auto of_scales = join(words[0] & 0x3f3f3f3fU, (words[2] & 0x0f0f0f0fU) | upper(words[0]));
    const auto of_least =
        join(words[1] & 0x3f3f3f3fU, (words[2] >> 4 & 0x0f0f0f0fU) | upper(words[1]));
    for (int64_t i = 0; i < kChunkGroups; i += kLanes) {
      store_factors(load_eight(of_scales, i), numbers.factors + i);
      store(numbers.offsets + i, to_floats(load_eight(of_least, i)) * -least);
    }
  }

  static Pairs factor(int64_t group, const ChunkNumbers& numbers) {
    return bits<Pairs>(Ints{} + numbers.factors[group]);
  }

  // Groups 2 g and 2 g + 1 share 32 bytes, as lower and upper halves.
  static Pairs nibbles(const std::byte* from, int64_t group, int64_t part) {
    const auto bytes = load_pairs(bytes_at(from, group / 2 * kGroup + part * 2 * kLanes));
    return group % 2 == 0 ? bytes & 15 : bytes >> 4;
  }
};

struct Q4K : LargeBlocksWithOffsets {
  static constexpr int64_t kBytes = 144;

  static Pairs integers(const std::byte* chunk,
                        int64_t group,
                        int64_t part,
                        const ChunkNumbers& numbers) {
    return nibbles(chunk + 16, group, part) * factor(group, numbers);
  }
};

struct Q5K : LargeBlocksWithOffsets {
  static constexpr int64_t kBytes = 176;

  static Pairs integers(const std::byte* chunk,
                        int64_t group,
                        int64_t part,
                        const ChunkNumbers& numbers) {
    const auto bytes = load_pairs(bytes_at(chunk, 16 + part * 2 * kLanes));
    const auto fifth = group <= 4 ? bytes << (4 - group) : bytes >> (group - 4);
    return (nibbles(chunk + 48, group, part) | (fifth & 16)) * factor(group, numbers);
  }
};

// Two halves of 128 columns, each of four groups: 4 bits of each number in 64 bytes and 2 in 32,
// and a scale of 8 bits for each 16 numbers.
struct Q6K {
  static constexpr bool kIsLarge = true;
  static constexpr bool kHasOffsets = false;
  static constexpr int64_t kColumns = kChunk;
  static constexpr int64_t kBytes = 210;

  static void describe(const std::byte* chunk, int64_t /*groups*/, ChunkNumbers& numbers) {
    numbers.scales[0] = half_at(chunk + 208);
    for (int64_t i = 0; i < kChunk / 16; i += kLanes) {
      store_factors((load_bytes(bytes_at(chunk, 192 + i)) << 24) >> 24, numbers.factors + i);
    }
  }

  static Pairs integers(const std::byte* chunk,
                        int64_t group,
                        int64_t part,
                        const ChunkNumbers& numbers) {
    const auto half = group / 4, in_half = group % 4, column = part * 2 * kLanes;
    const auto four = load_pairs(bytes_at(chunk, half * 64 + in_half % 2 * kGroup + column));
    const auto two = load_pairs(bytes_at(chunk, 128 + half * 32 + column));
    const auto upper = (in_half < 2 ? two << (4 - 2 * in_half) : two >> (2 * in_half - 4)) & 48;
    return (((in_half < 2 ? four & 15 : four >> 4) | upper) - 32) *
           splat_two(numbers.factors + 2 * group, part);
  }
};

// Calls use(format) with the format's struct.
template <typename Use>
inline __attribute__((always_inline)) void with_format(Encoding encoding, const Use& use) {
  switch (encoding) {
    case Encoding::kQ4_0:
      return use(Q4_0());
    case Encoding::kQ4_1:
      return use(Q4_1());
    case Encoding::kQ5_0:
      return use(Q5_0());
    case Encoding::kQ5_1:
      return use(Q5_1());
    case Encoding::kQ8_0:
      return use(Q8_0());
    case Encoding::kQ4K:
      return use(Q4K());
    case Encoding::kQ5K:
      return use(Q5K());
    case Encoding::kQ6K:
      return use(Q6K());
    case Encoding::kIq4Nl:
      return use(Iq4Nl());
    case Encoding::kPlain:
      return;  // Not in blocks.
  }
}

}  // namespace
}  // namespace gemma::cpu
