#pragma once

#include <gemma/ops/cpu/vector/block_formats.h>
#include <gemma/ops/cpu/vector/blocking.h>
#include <gemma/ops/cpu/vector/integers.h>

// Products of activations with weights that stand in the blocks of a GGUF. Activations are 16-bit
// integers, with a scale for each chunk of columns.
namespace gemma::cpu {
namespace {

// The sum of so many groups of a large format stays below 2^31: each lane adds two products for
// each vector of a group, and the largest factor of an activation is Q6_K's, 128 * 32.
constexpr float kChunkLimit = 32767.0F;
constexpr int64_t kSumGroups = kChunkGroups / kGroupVectors;
static_assert(kSumGroups * kGroupVectors * 2 * 128 * 32 * 32767 < int64_t{1} << 31);

// Rows of activations for weights in blocks.
struct ChunkedRows {
  const int16_t* values;  // [rows, columns]
  const float* scales;    // [rows, chunks]
  // [rows, (chunks + 1) * kChunkGroups]: the sum of each group's numbers, and zeros after the last
  // group, as vectors read past it.
  const float* sums;

  ChunkedRows from(int64_t row, int64_t columns) const {
    return {values + row * columns, scales + row * chunks(columns),
            sums + row * group_sums(columns)};
  }

  static int64_t chunks(int64_t columns) { return (columns + kChunk - 1) / kChunk; }
  static int64_t group_sums(int64_t columns) { return (chunks(columns) + 1) * kChunkGroups; }
};

inline void quantize_chunks(
    const float* x, int64_t columns, int16_t* values, float* scales, float* sums) {
  std::memset(sums, 0, ChunkedRows::group_sums(columns) * sizeof(float));
  for (int64_t begin = 0; begin < columns; begin += kChunk, sums += kChunkGroups) {
    const auto width = columns - begin < kChunk ? columns - begin : kChunk;
    const auto scale = to_integers(x + begin, width, kChunkLimit, values + begin);
    *scales++ = scale;
    for (int64_t g = 0; g < width / kGroup; ++g) {
      int32_t total = 0;
      for (int64_t i = 0; i < kGroup; ++i) total += values[begin + g * kGroup + i];
      sums[g] = static_cast<float>(total) * scale;
    }
  }
}

template <typename Format>
constexpr int64_t kChunkBytes = kChunk / Format::kColumns * Format::kBytes;

// Bytes of a row.
template <typename Format>
int64_t row_bytes(int64_t columns) {
  return columns / Format::kColumns * Format::kBytes;
}

// parts[r][c] += a group of w[r] times that of x[c].
template <typename Format, int kWeightRows, int kRows, typename Part>
inline __attribute__((always_inline)) void add_group(const int16_t* x,
                                                     int64_t ldx,
                                                     const std::byte* w,
                                                     int64_t ldw,
                                                     int64_t group,
                                                     const ChunkNumbers (&numbers)[kWeightRows],
                                                     Part (&parts)[kWeightRows][kRows]) {
  Pairs weights[kWeightRows][kGroupVectors];
#pragma GCC unroll 4
  for (int r = 0; r < kWeightRows; ++r) {
#pragma GCC unroll 4
    for (int64_t v = 0; v < kGroupVectors; ++v) {
      weights[r][v] = Format::integers(w + r * ldw, group, v, numbers[r]);
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < kRows; ++c) {
    Pairs inputs[kGroupVectors];
#pragma GCC unroll 4
    for (int64_t v = 0; v < kGroupVectors; ++v) {
      inputs[v] = load_pairs(x + c * ldx + group * kGroup + v * 2 * kLanes);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kWeightRows; ++r) {
      Ints dot{};
      if constexpr (Format::kIsLarge) dot = parts[r][c];
#pragma GCC unroll 4
      for (int64_t v = 0; v < kGroupVectors; ++v) {
        dot = add_products(weights[r][v], inputs[v], dot);
      }
      if constexpr (Format::kIsLarge) {
        parts[r][c] = dot;
      } else {
        parts[r][c] = fma(to_floats(dot), splat(numbers[r].scales[group]), parts[r][c]);
      }
    }
  }
}

// sums[r][c] += parts[r][c] times scale(r) and the scale of x[c], which are `apart`.
template <int kWeightRows, int kRows, typename Part, typename Scale>
inline __attribute__((always_inline)) void add_parts(const Part (&parts)[kWeightRows][kRows],
                                                     const float* scales,
                                                     int64_t apart,
                                                     const Scale& scale,
                                                     Floats (&sums)[kWeightRows][kRows]) {
#pragma GCC unroll 8
  for (int c = 0; c < kRows; ++c) {
#pragma GCC unroll 4
    for (int r = 0; r < kWeightRows; ++r) {
      const auto part = __builtin_convertvector(parts[r][c], Floats);
      sums[r][c] = fma(part, splat(scales[c * apart] * scale(r)), sums[r][c]);
    }
  }
}

// y[c][r * apart] = x[c] . w[r * apart] for kWeightRows rows of w and kRows rows of x.
template <typename Format, int kWeightRows, int kRows>
void block_dots(const ChunkedRows& x,
                const std::byte* w,
                int64_t columns,
                int64_t apart,
                float* y,
                int64_t ldy) {
  const auto ldw = apart * row_bytes<Format>(columns);
  const auto chunks = ChunkedRows::chunks(columns);
  const auto ld_sums = ChunkedRows::group_sums(columns);
  ask_to_write<kWeightRows, kRows>(apart, y, ldy);
  Floats sums[kWeightRows][kRows];
  clear(sums);
  for (int64_t chunk = 0; chunk < chunks; ++chunk, w += kChunkBytes<Format>) {
    const auto left = columns - chunk * kChunk;
    const auto groups = left < kChunk ? left / kGroup : kChunkGroups;
    ChunkNumbers numbers[kWeightRows];
    for (int r = 0; r < kWeightRows; ++r) {
      Format::describe(w + r * ldw, groups, numbers[r]);
      for (int64_t i = 0; i < kChunkBytes<Format>; i += 64) {
        prefetch_weights(w + r * ldw + i + kIntegerPrefetch);
      }
    }
    const auto* const values = x.values + chunk * kChunk;
    if constexpr (Format::kIsLarge) {
      for (int64_t first = 0; first < kChunkGroups; first += kSumGroups) {
        Ints parts[kWeightRows][kRows];
        clear(parts);
#pragma GCC unroll 8
        for (int64_t g = 0; g < kSumGroups; ++g) {
          add_group<Format>(values, columns, w, ldw, first + g, numbers, parts);
        }
        add_parts(
            parts, x.scales + chunk, chunks, [&](int r) { return numbers[r].scales[0]; }, sums);
      }
    } else {
      Floats parts[kWeightRows][kRows];
      clear(parts);
      for (int64_t g = 0; g < groups; ++g) {
        add_group<Format>(values, columns, w, ldw, g, numbers, parts);
      }
      add_parts(parts, x.scales + chunk, chunks, [](int /*r*/) { return 1.0F; }, sums);
    }
    if constexpr (Format::kHasOffsets) {
      for (int c = 0; c < kRows; ++c) {
        const auto* const of_groups = x.sums + c * ld_sums + chunk * kChunkGroups;
        for (int r = 0; r < kWeightRows; ++r) {
          for (int64_t i = 0; i < kChunkGroups; i += kLanes) {
            sums[r][c] = fma(load(numbers[r].offsets + i), load(of_groups + i), sums[r][c]);
          }
        }
      }
    }
  }
  for (int r = 0; r < kWeightRows; ++r) {
    float totals[kRows];
    sum_each(sums[r], totals);
    for (int c = 0; c < kRows; ++c) y[c * ldy + r * apart] = totals[c];
  }
}

// Rows of x that are multiplied with weight rows at once, at most, and how many of these: as many
// as registers hold sums of. Portable code is for tests, and has one loop for all.
#if defined(__AVX512F__)
constexpr int kInputRows = 8;
constexpr int kBlockWeightRows = 4;
#elif defined(__AVX2__)
constexpr int kInputRows = 4;
constexpr int kBlockWeightRows = 2;
#else
constexpr int kInputRows = 1;
constexpr int kBlockWeightRows = 1;
#endif

// Calls use(count, first) for groups of rows of x, each of 1, 2, 4 … kMost rows.
template <int kMost, typename Use>
void each_block_group(int64_t rows, int64_t first, const Use& use) {
  for (; rows - first >= kMost; first += kMost) use(Constant<kMost>(), first);
  if constexpr (kMost > 1) each_block_group<kMost / 2>(rows, first, use);
}

template <typename Format>
void multiply_blocks(const ChunkedRows& x,
                     int64_t rows,
                     const std::byte* data,
                     int64_t columns,
                     int64_t begin,
                     int64_t end,
                     float* y,
                     int64_t ldy) {
  const auto multiply = [&]<int kWeightRows, int kRows>(int64_t n, int64_t apart, int64_t first) {
    block_dots<Format, kWeightRows, kRows>(x.from(first, columns),
                                           data + n * row_bytes<Format>(columns), columns, apart,
                                           y + first * ldy + n - begin, ldy);
  };
  stretches<kBlockWeightRows>(begin, end, [&](auto together, int64_t n, int64_t apart) {
    constexpr int kWeightRows = together;
    each_block_group<kWeightRows == 1 ? 1 : kInputRows>(rows, 0, [&](auto count, int64_t first) {
      // Of eight rows of x, registers hold the sums for two weight rows.
      constexpr int kRows = count;
      if constexpr (kRows * kWeightRows <= 16) {
        multiply.template operator()<kWeightRows, kRows>(n, apart, first);
      } else {
        multiply.template operator()<kWeightRows / 2, kRows>(n, apart, first);
        multiply.template operator()<kWeightRows / 2, kRows>(n + kWeightRows / 2 * apart, apart,
                                                             first);
      }
    });
  });
}

inline void gemv_blocks(const ChunkedRows& x,
                        int64_t rows,
                        const WeightView& w,
                        int64_t begin,
                        int64_t end,
                        float* y,
                        int64_t ldy) {
  for (int64_t i = 0; i < w.block_parts; ++i) {
    const auto& part = w.blocks[i];
    const auto first = begin > part.begin ? begin : part.begin;
    const auto last = end < part.end ? end : part.end;
    if (first >= last) continue;
    with_format(part.encoding, [&](auto format) {
      multiply_blocks<decltype(format)>(x, rows, part.data, w.columns, first - part.begin,
                                        last - part.begin, y + first - begin, ldy);
    });
  }
}

// The numbers of a group.
template <typename Format>
void read_group(const std::byte* chunk, int64_t group, const ChunkNumbers& numbers, float* out) {
  using Halves = int16_t __attribute__((vector_size(kLanes * sizeof(int16_t))));
  const auto scale = splat(numbers.scales[Format::kIsLarge ? 0 : group]);
  const auto offset = splat(Format::kHasOffsets ? numbers.offsets[group] : 0.0F);
  for (int64_t v = 0; v < kGroupVectors; ++v) {
    const auto integers = Format::integers(chunk, group, v, numbers);
    Halves halves[2];
    std::memcpy(halves, &integers, sizeof(halves));
    for (const auto half : halves) {
      store(out, fma(to_floats(__builtin_convertvector(half, Ints)), scale, offset));
      out += kLanes;
    }
  }
}

// Columns [begin, begin + width) of a row, both multiples of kGroup.
inline void read_blocks(
    const WeightView& w, int64_t row, int64_t begin, int64_t width, float* out) {
  const auto* part = w.blocks;
  while (row >= part->end) ++part;
  with_format(part->encoding, [&](auto format) {
    using Format = decltype(format);
    const auto* const data = part->data + (row - part->begin) * row_bytes<Format>(w.columns);
    auto chunk = begin / kChunk;
    auto group = begin % kChunk / kGroup;
    for (auto left = width / kGroup; left > 0; ++chunk, group = 0) {
      const auto* const from = data + chunk * kChunkBytes<Format>;
      const auto in_row = (w.columns - chunk * kChunk) / kGroup;
      const auto groups = in_row < kChunkGroups ? in_row : kChunkGroups;
      ChunkNumbers numbers;
      Format::describe(from, groups, numbers);
      for (; group < groups && left > 0; ++group, --left, out += kGroup) {
        read_group<Format>(from, group, numbers, out);
      }
    }
  });
}

}  // namespace
}  // namespace gemma::cpu
