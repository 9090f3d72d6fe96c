#pragma once

#include <gemma/ops/cpu/vector/blocking.h>
#include <gemma/ops/cpu/vector/int4_loops.h>
#include <gemma/ops/cpu/vector/integers.h>

// Products with int8 and 4-bit weights by 16-bit integers: processors multiply twice as many of
// these at once as floats. The sums of a block of columns are exact.
namespace gemma::cpu {
namespace {

// A block's sum stays below 2^31: kKc * 128 * 32767, or * 2047 * 2047.
constexpr float kActivationLimit = 32767.0F;
constexpr float kInt4Limit = 2047.0F;
static_assert(kKc <= 511);

// Rows of activations as 16-bit integers, with a scale for each packed_block of a row's columns.
struct Int16Rows {
  const int16_t* values;  // [rows, columns]
  const float* scales;    // [rows, packed_blocks(columns)]
};

inline void quantize_int16(const float* x, int64_t columns, int16_t* values, float* scales) {
  each_block(columns, [&](int64_t begin, int64_t width) {
    *scales++ = to_integers(x + begin, width, kActivationLimit, values + begin);
  });
}

inline Pairs load_pairs_part(const int16_t* from, int64_t count) {
  int16_t padded[2 * kLanes] = {};
  std::memcpy(padded, from, count * sizeof(int16_t));
  return load_pairs(padded);
}

inline Pairs load_pairs_part(const int8_t* from, int64_t count) {
  int8_t padded[2 * kLanes] = {};
  std::memcpy(padded, from, count);
  return load_pairs(padded);
}

// y[c][r * apart] = x[c] . w's row n + r * apart for kWeightRows rows of w and kRows rows of x.
template <int kWeightRows, int kRows>
void int8_dots(const Int16Rows& x,
               const WeightView& w,
               int64_t block,
               int64_t n,
               int64_t apart,
               float* y,
               int64_t ldy) {
  const auto size = w.columns;
  const auto blocks = (size + block - 1) / block;
  const auto* const rows = static_cast<const int8_t*>(w.data) + n * size;
  const auto ldw = apart * size;
  ask_to_write<kWeightRows, kRows>(apart, y, ldy);
  // Set by the first block: to clear them took 1.15 times as long.
  Floats sums[kWeightRows][kRows];
  const auto* x_scales = x.scales;
  for (int64_t begin = 0; begin < size; begin += block, ++x_scales) {
    const auto end = begin + block < size ? begin + block : size;
    Ints parts[kWeightRows][kRows];
    clear(parts);
    const auto step = [&](int64_t i, const auto& load) __attribute__((always_inline)) {
      Pairs weights[kWeightRows];
      for (int r = 0; r < kWeightRows; ++r) weights[r] = load(rows + r * ldw + i);
      for (int c = 0; c < kRows; ++c) {
        auto input = load(x.values + c * size + i);
        keep_in_register(input);
        for (int r = 0; r < kWeightRows; ++r) {
          parts[r][c] = add_products(weights[r], input, parts[r][c]);
        }
      }
    };
    constexpr int64_t kStep = 2 * kLanes;
    auto i = begin;
    for (; i + kStep <= end; i += kStep) {
      for (int r = 0; r < kWeightRows; ++r) prefetch_weights(rows + r * ldw + i + kIntegerPrefetch);
      step(i, [](const auto* from) { return load_pairs(from); });
    }
    if (i < end) step(i, [&](const auto* from) { return load_pairs_part(from, end - i); });
#pragma GCC unroll 8
    for (int c = 0; c < kRows; ++c) {
      const auto scale = splat(x_scales[c * blocks]);
#pragma GCC unroll 4
      for (int r = 0; r < kWeightRows; ++r) {
        const auto before = begin == 0 ? zeros() : sums[r][c];
        sums[r][c] = fma(to_floats(parts[r][c]), scale, before);
      }
    }
  }
  for (int r = 0; r < kWeightRows; ++r) {
    const auto scale = row_scale(w, n + r * apart);
    float totals[kRows];
    sum_each(sums[r], totals);
    for (int c = 0; c < kRows; ++c) y[c * ldy + r * apart] = totals[c] * scale;
  }
}

inline void gemv_int8(const Int16Rows& x,
                      int64_t rows,
                      const WeightView& w,
                      int64_t begin,
                      int64_t end,
                      float* y,
                      int64_t ldy) {
  const auto block = packed_block(w.columns);
  const auto blocks = packed_blocks(w.columns);
  with_weight_rows<4>(rows, [&](auto weight_rows) {
    stretches<weight_rows>(begin, end, [&](auto together, int64_t n, int64_t apart) {
      each_group(rows, [&](auto count, int64_t first) {
        int8_dots<together, count>({x.values + first * w.columns, x.scales + first * blocks}, w,
                                   block, n, apart, y + first * ldy + n - begin, ldy);
      });
    });
  });
}

// Where pack_int16 puts numbers, and their scales [packed_blocks(columns), padded_rows].
struct PackedInt16 {
  PackedInt16(int64_t rows, int64_t columns)
      : padded_rows(round_up(rows, kMr)),
        scales_at(round_up(padded_rows * round_up(columns, 2) * 2, kLine)),
        size(scales_at +
             packed_blocks(columns) * padded_rows * static_cast<int64_t>(sizeof(float))) {}

  int64_t padded_rows;
  int64_t scales_at, size;  // In bytes.

 private:
  static constexpr int64_t kLine = 64;
};

// As pack_floats, but each number is a pair of consecutive columns in 16 bits, or 12 for `weights`
// of kInt4.
inline void pack_int16(const float* x,
                       int64_t rows,
                       int64_t columns,
                       int64_t group,
                       WeightType weights,
                       std::byte* memory) {
  const auto limit = weights == WeightType::kInt4 ? kInt4Limit : kActivationLimit;
  const PackedInt16 layout(rows, columns);
  const auto padded_rows = layout.padded_rows;
  auto* const packed = reinterpret_cast<int16_t*>(memory);
  auto* scales = reinterpret_cast<float*>(memory + layout.scales_at);
  const auto first = group * kMr;
  each_block(columns, [&](int64_t begin, int64_t width) {
    const auto pairs = (width + 1) / 2;
    auto* out = packed + begin * padded_rows + group * kMr * pairs * 2;
    int16_t values[kMr][kKc] = {};
    for (int64_t r = 0; r < kMr; ++r) {
      scales[first + r] = 0.0F;
      if (first + r < rows) {
        scales[first + r] = to_integers(x + (first + r) * columns + begin, width, limit, values[r]);
      }
    }
    const auto load = [](const int16_t* from, int64_t pair) {
      Floats two_each;
      std::memcpy(&two_each, from + 2 * pair, sizeof(two_each));
      return two_each;
    };
    pack_mr([&](int64_t r) { return values[r]; }, load, pairs, reinterpret_cast<float*>(out));
    scales += padded_rows;
  });
}

// A panel's columns [begin, begin + width), a pair of them in the place of a float, and the scales
// of its rows.
inline void pack_int16_weights(const WeightView& w,
                               int64_t panel,
                               int64_t begin,
                               int64_t width,
                               float* packed,
                               int16_t* wide,
                               float* scales) {
  const auto first = panel * kNr;
  const auto pack = [&](const auto& row) {
    const auto load = [&](const auto* from, int64_t pair) {
      const auto count = width - 2 * pair;
      from += 2 * pair;
      return bits<Floats>(count >= 2 * kLanes ? load_pairs(from) : load_pairs_part(from, count));
    };
    pack_nr(row, load, (width + 1) / 2, packed);
  };
  const auto present = rows_in_panel(w, panel);
  for (int64_t r = present; r < kNr; ++r) scales[r] = 0.0F;
  if (w.type == WeightType::kInt4) {
    for (int64_t r = 0; r < present; ++r) {
      float row[kKc];
      read_int4(w, first + r, begin, width, row);
      scales[r] = to_integers(row, width, kInt4Limit, wide + r * width);
    }
    pack([&](int64_t r) { return r < present ? wide + r * width : nullptr; });
    return;
  }
  for (int64_t r = 0; r < present; ++r) scales[r] = row_scale(w, first + r);
  const auto* const data = static_cast<const int8_t*>(w.data);
  pack([&](int64_t r) { return r < present ? data + (first + r) * w.columns + begin : nullptr; });
}

// c[r][0 .. kNr) = (c +) scales[r] * column_scales * sum over the pairs of a and b.
inline void multiply_int16_tile(int64_t pairs,
                                const int16_t* a,
                                const float* b,
                                const float* scales,
                                const float* column_scales,
                                bool add,
                                float* c,
                                int64_t ldc) {
  Ints sums[kMr][2] = {};
  for (int64_t r = 0; r < kMr; ++r) prefetch_to_write(c + r * ldc);
#pragma GCC unroll 4
  for (int64_t k = 0; k < pairs; ++k) {
    const auto low = bits<Pairs>(load(b + k * kNr));
    const auto high = bits<Pairs>(load(b + k * kNr + kLanes));
#pragma GCC unroll 12
    for (int64_t r = 0; r < kMr; ++r) {
      const auto x = splat_pair(a + (k * kMr + r) * 2);
      sums[r][0] = add_products(x, low, sums[r][0]);
      sums[r][1] = add_products(x, high, sums[r][1]);
    }
  }
  for (int64_t r = 0; r < kMr; ++r) {
    for (int64_t h = 0; h < 2; ++h) {
      auto* const to = c + r * ldc + h * kLanes;
      const auto scale = load(column_scales + h * kLanes) * scales[r];
      store(to, fma(to_floats(sums[r][h]), scale, add ? load(to) : zeros()));
    }
  }
}

inline void gemm_int16(const PackedRows& x,
                       const WeightView& w,
                       int64_t panel,
                       float* y,
                       int64_t ldy,
                       float* scratch) {
  const auto present = rows_in_panel(w, panel);
  const PackedInt16 layout(x.rows, w.columns);
  const auto padded_rows = layout.padded_rows;
  const auto* const values = reinterpret_cast<const int16_t*>(x.data);
  const auto* scales = reinterpret_cast<const float*>(x.data + layout.scales_at);
  auto* const wide = reinterpret_cast<int16_t*>(scratch + kNr * kKc / 2);
  float column_scales[kNr];
  each_block(w.columns, [&](int64_t begin, int64_t width) {
    const auto pairs = (width + 1) / 2;
    pack_int16_weights(w, panel, begin, width, scratch, wide, column_scales);
    for (auto m = x.begin; m < x.end; m += kMr) {
      const auto* const a = values + begin * padded_rows + m * pairs * 2;
      const auto count = x.end - m < kMr ? x.end - m : kMr;
      with_tile(
          count, present, begin > 0, y + (m - x.begin) * ldy, ldy, [&](float* c, int64_t ldc) {
            multiply_int16_tile(pairs, a, scratch, scales + m, column_scales, begin > 0, c, ldc);
          });
    }
    scales += padded_rows;
  });
}

}  // namespace
}  // namespace gemma::cpu
