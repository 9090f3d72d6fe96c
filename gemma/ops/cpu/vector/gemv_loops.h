#pragma once

#include <gemma/ops/cpu/vector/blocking.h>

// Products of few rows of activations with weights that are floats.
namespace gemma::cpu {
namespace {

// Columns of a group of `rows` rows of x that are multiplied with some weight rows before the next
// ones are: they stay in the first cache. Sums are kept from block to block, so that their order
// does not depend on this.
inline int64_t gemv_block(int64_t rows, int64_t columns) {
  constexpr int64_t kFloatsInCache = 5 << 10;
  constexpr int64_t kUnit = 64;  // A multiple of what `dots` takes in a step.
  if (rows == 1) return columns;
  const auto blocks = (columns * rows + kFloatsInCache - 1) / kFloatsInCache;
  return round_up((columns + blocks - 1) / blocks, kUnit);
}

// Calls use(begin, width) for each gemv_block.
template <typename Use>
inline __attribute__((always_inline)) void each_gemv_block(int64_t rows,
                                                           int64_t columns,
                                                           const Use& use) {
  const auto block = gemv_block(rows, columns);
  for (int64_t begin = 0; begin < columns; begin += block) {
    use(begin, columns - begin < block ? columns - begin : block);
  }
}

// Rows [begin, end) of x. Groups of kRowsAtOnce rows; in a group vectors of kLanes columns, filled
// up with zeros; in a place one of each row. For weights of bfloat16 in the order of load_half: of
// each 2 * kLanes columns the even ones first; the remaining columns in their own order.
inline void pack_gemv_floats(
    const float* x, int64_t begin, int64_t end, int64_t columns, bool split, float* packed) {
  const auto vectors = (columns + kLanes - 1) / kLanes;
  packed += begin * vectors * kLanes;
  for (auto first = begin; first < end; first += kRowsAtOnce) {
    const auto count = end - first < kRowsAtOnce ? end - first : kRowsAtOnce;
    for (int64_t r = 0; r < count; ++r) {
      const auto* const from = x + (first + r) * columns;
      auto* const to = packed + r * kLanes;
      int64_t i = 0;
      for (; split && i + 2 * kLanes <= columns; i += 2 * kLanes) {
        auto* const even = to + i * count;
        for (int64_t j = 0; j < kLanes; ++j) {
          even[j] = from[i + 2 * j];
          even[count * kLanes + j] = from[i + 2 * j + 1];
        }
      }
      for (; i < columns; i += kLanes) store(to + i * count, load_up_to(columns - i)(from + i, 0));
    }
    packed += count * vectors * kLanes;
  }
}

// Sums of kRowsAtOnce rows of x, for each of some weight rows.
using KeptSums = Floats[kRowsAtOnce];

// Where sums begin and end: at those of weight row r * apart.
struct SumPlaces {
  const KeptSums* from;
  int64_t from_apart;
  KeptSums* to;  // None: they are complete.
};

// Which weights memory is asked for while others are multiplied: those `distance` numbers behind
// the first, and 1 / parts of as many as are multiplied.
struct Ahead {
  int64_t distance;
  int64_t parts;
};

// y[c][r * apart] = x[c] . w[r * apart] for kWeightRows rows of w, `ldw` numbers from one to the
// next, and kRows rows of x, `width` columns of them.
template <int kWeightRows, int kRows, typename T>
void dots(const float* x,
          int64_t width,
          const T* w,
          int64_t ldw,
          Ahead ahead,
          const SumPlaces& kept,
          int64_t apart,
          float* y,
          int64_t ldy) {
  if (kept.to == nullptr) ask_to_write<kWeightRows, kRows>(apart, y, ldy);
  Floats sums[kWeightRows][kRows];
  // Unrolled, or the sums would be in memory all the time.
#pragma GCC unroll 6
  for (int r = 0; r < kWeightRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kRows; ++c) sums[r][c] = kept.from[r * kept.from_apart][c];
  }
  const auto add = [&](const auto& weight) __attribute__((always_inline)) {
    Floats weights[kWeightRows];
    for (int r = 0; r < kWeightRows; ++r) weights[r] = weight(w + r * ldw);
    for (int c = 0; c < kRows; ++c) {
      auto of_x = load(x + c * kLanes);
      keep_in_register(of_x);
      for (int r = 0; r < kWeightRows; ++r) sums[r][c] = fma(weights[r], of_x, sums[r][c]);
    }
    x += kRows * kLanes;
  };
  constexpr int64_t kStep = 2 * kLanes;
  const auto step = [&](int64_t i) __attribute__((always_inline)) {
    add([=](const T* row) { return load_half<0>(row + i); });
    add([=](const T* row) { return load_half<1>(row + i); });
  };
  constexpr int64_t kLine = 64 / sizeof(T);  // Columns in a cache line.
  constexpr int64_t kStretch = kLine > kStep ? kLine : kStep;
  int64_t i = 0;
  const auto* next = w + ahead.distance;
  const auto next_stretch = kStretch / ahead.parts;
  for (; i + kStretch <= width; i += kStretch, next += next_stretch) {
    for (int r = 0; r < kWeightRows; ++r) {
      for (int64_t j = 0; j < kStretch; j += kLine) prefetch_weights(next + r * ldw + j);
    }
    for (int64_t j = 0; j < kStretch; j += kStep) step(i + j);
  }
  for (; i + kStep <= width; i += kStep) step(i);
  for (; i < width; i += kLanes) {
    add([=](const T* row) { return load_part(row + i, width - i < kLanes ? width - i : kLanes); });
  }
#pragma GCC unroll 6
  for (int r = 0; r < kWeightRows; ++r) {
    if (kept.to != nullptr) {
#pragma GCC unroll 8
      for (int c = 0; c < kRows; ++c) kept.to[r * apart][c] = sums[r][c];
      continue;
    }
    float totals[kRows];
    sum_each(sums[r], totals);
    for (int c = 0; c < kRows; ++c) y[c * ldy + r * apart] = totals[c];
  }
}

// Weight rows whose sums are kept: a multiple of all numbers of rows that are read together.
constexpr int64_t kKeptRows = 24;

// Weight rows [begin, end) with all rows of x: at most kKeptRows of them, or with one block of one
// group.
template <int kWeightRows, typename T>
void multiply_slice(const float* x,
                    int64_t rows,
                    const T* w,
                    int64_t columns,
                    int64_t begin,
                    int64_t end,
                    float* y,
                    int64_t ldy) {
  static const KeptSums kZeros[1] = {};
  KeptSums kept[kKeptRows];
  const auto groups = (rows + kRowsAtOnce - 1) / kRowsAtOnce;
  each_group(rows, [&](auto count, int64_t first) {
    const auto* const group = x + first * round_up(columns, kLanes);
    each_gemv_block(count, columns, [&](int64_t column, int64_t width) {
      // Of a part of the columns, what comes next is under it.
      Ahead ahead{width == columns ? kFloatPrefetch / static_cast<int64_t>(sizeof(T)) : columns, 1};
      // Where weights are read again for the next group, each group asks for its part of the next
      // slice: so memory is always busy.
      if (groups > 1) {
        ahead = {(end - begin) * columns + first / kRowsAtOnce * (width / groups), groups};
      }
      stretches<kWeightRows>(begin, end, [&](auto together, int64_t n, int64_t apart) {
        const SumPlaces sums{.from = column == 0 ? kZeros : kept + (n - begin),
                             .from_apart = column == 0 ? 0 : apart,
                             .to = column + width == columns ? nullptr : kept + (n - begin)};
        dots<together, count>(group + column * count, width, w + n * columns + column,
                              apart * columns, ahead, sums, apart, y + first * ldy + n - begin,
                              ldy);
      });
    });
  });
}

// y[m * ldy + n - begin] = x[m] . w[n]; x as pack_gemv_floats leaves it.
inline void gemv_floats(const float* x,
                        int64_t rows,
                        const WeightView& w,
                        int64_t begin,
                        int64_t end,
                        float* y,
                        int64_t ldy) {
  const bool at_once = rows <= kRowsAtOnce && gemv_block(rows, w.columns) >= w.columns;
  const auto slice = at_once ? end - begin : kKeptRows;
  visit_floats(w, [&](const auto* data) {
    with_weight_rows<kFloatRows>(rows, [&](auto weight_rows) {
      for (auto n = begin; n < end; n += slice) {
        multiply_slice<weight_rows>(x, rows, data, w.columns, n, n + slice < end ? n + slice : end,
                                    y + n - begin, ldy);
      }
    });
  });
}

}  // namespace
}  // namespace gemma::cpu
