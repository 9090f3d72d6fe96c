#pragma once

#include <gemma/ops/cpu/vector/simd.h>

// How products of activations with weights are divided, for weights of every type.
namespace gemma::cpu {
namespace {

// How many bytes ahead of the reader each row's stream is asked for, in products of few rows.
// Weights of floats were read fastest with 256 of 256, 512 and 1024 by AVX2 on a Zen 3, and with
// 1024 of 256 to 4096 by AVX-512 on a Granite Rapids and on a Zen 5; for integers 128 to 1024 made
// no difference that could be measured on the first two, and 1024 was best of 512 to 3072 on the
// third.
#ifdef __AVX512F__
constexpr int64_t kFloatPrefetch = 1024;
#else
constexpr int64_t kFloatPrefetch = 256;
#endif
constexpr int64_t kIntegerPrefetch = 1024;

// Rows of floats that are read together: 4 were 5 % faster than 6 on a Zen 5, but not by AVX2.
// Processors with AMX were not tried with 4.
#if defined(__AVX512F__) && !defined(__AMX_TILE__)
constexpr int kFloatRows = 4;
#else
constexpr int kFloatRows = 6;
#endif

template <int kValue>
struct Constant {
  constexpr operator int() const { return kValue; }  // NOLINT(google-explicit-constructor)
};

// Calls use(count, n, apart) for `count` weight rows n, n + apart, … at a time, for all of
// [begin, end). Rows that are read together are far apart, each the next of its own
// stretch: memory then sees kWeightRows long streams, which its prefetchers follow better than one
// that jumps.
template <int kWeightRows, typename Use>
void stretches(int64_t begin, int64_t end, const Use& use) {
  const auto apart = (end - begin) / kWeightRows;
  for (auto n = begin; n < begin + apart; ++n) use(Constant<kWeightRows>(), n, apart);
  for (auto n = begin + apart * kWeightRows; n < end; ++n) use(Constant<1>(), n, int64_t{0});
}

// Rows of x that are multiplied with weight rows at once, at most, and how many sums registers hold
// beside weights and x.
#ifdef __AVX512F__
constexpr int64_t kRowsAtOnce = 8;
constexpr int64_t kDotSums = 24;
#else
constexpr int64_t kRowsAtOnce = 4;
constexpr int64_t kDotSums = 12;
#endif
constexpr int kMostWeightRows = 4;

// Calls use(weight_rows), a Constant: as many weight rows as are multiplied with `rows` rows of x
// at once; kOne for one row.
template <int kOne, typename Use>
void with_weight_rows(int64_t rows, const Use& use) {
  if (rows == 1) return use(Constant<kOne>());
  const auto group = rows < kRowsAtOnce ? rows : kRowsAtOnce;
  switch (kDotSums / group < kMostWeightRows ? kDotSums / group : kMostWeightRows) {
    case 3:
      return use(Constant<3>());
    default:
      return use(Constant<kMostWeightRows>());
  }
}

// Calls use(count) with `count`, 1 to kMost, as a Constant.
template <int kMost, typename Use>
inline __attribute__((always_inline)) void with_count(int64_t count, const Use& use) {
  if (count == kMost) return use(Constant<kMost>());
  if constexpr (kMost > 1) with_count<kMost - 1>(count, use);
}

// Calls use(count, first) for groups of rows of x: `count`, a Constant, of them from `first` on.
// The next group finds the weights in the first cache.
template <typename Use>
inline __attribute__((always_inline)) void each_group(int64_t rows, const Use& use) {
  for (int64_t first = 0; first < rows; first += kRowsAtOnce) {
    const auto left = rows - first;
    with_count<kRowsAtOnce>(left < kRowsAtOnce ? left : kRowsAtOnce,
                            [&](auto count) { use(count, first); });
  }
}

// Unrolled, as what uses the sums: else they would be in memory all the time.
template <typename T, int kWeightRows, int kRows>
inline __attribute__((always_inline)) void clear(T (&sums)[kWeightRows][kRows]) {
#pragma GCC unroll 6
  for (int r = 0; r < kWeightRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kRows; ++c) sums[r][c] = T{};
  }
}

// The processor gets y[c * ldy + r * apart] ready to be written while products are summed: rows of
// y are far apart, and without this an Emerald Rapids took a tenth longer for 8 rows and more.
template <int kWeightRows, int kRows>
void ask_to_write(int64_t apart, float* y, int64_t ldy) {
  for (int c = 0; c < kRows; ++c) {
    for (int r = 0; r < kWeightRows; ++r) prefetch_to_write(y + c * ldy + r * apart);
  }
}

// Rows of x that are multiplied with a panel of weights at once: as many as registers hold sums of.
#ifdef __AVX512F__
constexpr int64_t kMr = 12;
#else
constexpr int64_t kMr = 6;
#endif
constexpr int64_t kNr = 2 * kLanes;

// How many rows of w the panel has: fewer than kNr only at the end.
inline int64_t rows_in_panel(const WeightView& w, int64_t panel) {
  const auto left = w.rows - panel * kNr;
  return left < kNr ? left : kNr;
}

// Calls use(begin, width) for each packed_block of the columns.
template <typename Use>
void each_block(int64_t columns, const Use& use, int64_t most = kKc) {
  const auto block = packed_block(columns, most);
  for (int64_t begin = 0; begin < columns; begin += block) {
    use(begin, columns - begin < block ? columns - begin : block);
  }
}

// Calls use(i, count) for `count` columns from i on: kStep of them, fewer at the end. Written out
// for kStep, so that vectors stay in registers.
template <int64_t kStep, typename Use>
inline __attribute__((always_inline)) void each_step(int64_t width, const Use& use) {
  int64_t i = 0;
  for (; i + kStep <= width; i += kStep) use(i, kStep);
  if (i < width) use(i, width - i);
}

// kNr rows of any address, as columns of kNr numbers: `width` columns.
// row(r) is the address of row r, or nullptr for a row of zeros; load(address, i) is its columns
// [i, i + kLanes), zeros after `width`.
template <typename Row, typename Load>
void pack_nr(const Row& row, const Load& load, int64_t width, float* packed) {
  for (int64_t half = 0; half < kNr; half += kLanes) {
    each_step<kLanes>(width, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
      Floats v[kLanes];
#pragma GCC unroll 16
      for (int64_t r = 0; r < kLanes; ++r) {
        const auto* from = row(half + r);
        v[r] = from == nullptr ? zeros() : load(from, i);
      }
      transpose(v);
#pragma GCC unroll 16
      for (int64_t c = 0; c < count; ++c) store(packed + (i + c) * kNr + half, v[c]);
    });
  }
}

// The same of kMr rows, as columns of kMr numbers.
template <typename Row, typename Load>
void pack_mr(const Row& row, const Load& load, int64_t width, float* packed) {
  constexpr int64_t kParts = (kMr + kLanes - 1) / kLanes;
  each_step<kLanes>(width, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
    Floats v[kParts][kLanes];
#pragma GCC unroll 16
    for (int64_t r = 0; r < kParts * kLanes; ++r) {
      const auto* from = r < kMr ? row(r) : nullptr;
      v[r / kLanes][r % kLanes] = from == nullptr ? zeros() : load(from, i);
    }
    for (auto& part : v) transpose(part);
#pragma GCC unroll 16
    for (int64_t c = 0; c < count; ++c) {
      for (int64_t part = 0; part < kParts; ++part) {
        auto* const to = packed + (i + c) * kMr + part * kLanes;
        const auto left = kMr - part * kLanes;
        // The next columns overwrite the excess.
        if (left >= kLanes || (i + c) * kMr + (part + 1) * kLanes <= width * kMr) {
          store(to, v[part][c]);
        } else {
          store_part(to, v[part][c], left);
        }
      }
    }
  });
}

// load(address, i) of rows of floats of any kind.
inline auto load_up_to(int64_t width) {
  return [width](const auto* from, int64_t i) {
    return width - i >= kLanes ? load(from + i) : load_part(from + i, width - i);
  };
}

// Calls use(tile, ldt) for kMr rows of kNr numbers, of which c has but `rows` and
// `columns`: c itself if these are all, else memory that has c's numbers, if `keep`, and is copied
// back.
template <typename Use>
void with_tile(int64_t rows, int64_t columns, bool keep, float* c, int64_t ldc, const Use& use) {
  if (rows == kMr && columns == kNr) return use(c, ldc);
  float whole[kMr * kNr] = {};
  for (int64_t r = 0; keep && r < rows; ++r) {
    std::memcpy(whole + r * kNr, c + r * ldc, columns * sizeof(float));
  }
  use(whole, kNr);
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(c + r * ldc, whole + r * kNr, columns * sizeof(float));
  }
}

}  // namespace
}  // namespace gemma::cpu
