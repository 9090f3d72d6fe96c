#pragma once

#include <gemma/ops/cpu/int4_loops.h>
#include <gemma/ops/cpu/simd.h>

// Products of activations with weight matrices.
namespace gemma::cpu {
namespace {

// Bytes ahead of the reader that are asked for: far enough to hide memory's latency.
constexpr int64_t kPrefetchBytes = 1024;

// y[c][r * apart] = x[c] . w[r * apart] for kWeightRows rows of w and kRows rows of x.
template <int kWeightRows, int kRows, typename T>
void dots(const float* x,
          int64_t size,
          const T* w,
          int64_t apart,
          const float* scales,
          float* y,
          int64_t ldy) {
  const auto ldw = apart * size;
  Floats sums[kWeightRows][kRows] = {};
  constexpr int64_t kStep = 64 / sizeof(T) > kLanes ? 64 / sizeof(T) : kLanes;  // A cache line.
  const auto step = [&](int64_t i) __attribute__((always_inline)) {
    Floats weights[kWeightRows];
    for (int r = 0; r < kWeightRows; ++r) weights[r] = load(w + r * ldw + i);
    for (int c = 0; c < kRows; ++c) {
      const auto input = load(x + c * size + i);
      for (int r = 0; r < kWeightRows; ++r) sums[r][c] = fma(weights[r], input, sums[r][c]);
    }
  };
  int64_t i = 0;
  for (; i + kStep <= size; i += kStep) {
    for (int r = 0; r < kWeightRows; ++r) {
      prefetch(reinterpret_cast<const char*>(w + r * ldw + i) + kPrefetchBytes);
    }
    for (int64_t j = 0; j < kStep; j += kLanes) step(i + j);
  }
  for (; i + kLanes <= size; i += kLanes) step(i);
  if (i < size) {
    for (int r = 0; r < kWeightRows; ++r) {
      const auto weights = load_part(w + r * ldw + i, size - i);
      for (int c = 0; c < kRows; ++c) {
        sums[r][c] = fma(weights, load_part(x + c * size + i, size - i), sums[r][c]);
      }
    }
  }
  for (int c = 0; c < kRows; ++c) {
    for (int r = 0; r < kWeightRows; ++r) {
      const auto dot = sum(sums[r][c]);
      y[c * ldy + r * apart] = scales == nullptr ? dot : dot * scales[r * apart];
    }
  }
}

template <int kWeightRows, int kRows, typename T>
void multiply_rows(const T* data,
                   const float* x,
                   const Matrix& w,
                   int64_t begin,
                   int64_t end,
                   float* y,
                   int64_t ldy) {
  const auto scales_at = [&](int64_t n) { return w.scales == nullptr ? nullptr : w.scales + n; };
  // Rows that are read together are far apart, each the next of its own stretch: memory then sees
  // kWeightRows long streams, which its prefetchers follow better than one that jumps.
  const auto apart = (end - begin) / kWeightRows;
  for (auto n = begin; n < begin + apart; ++n) {
    dots<kWeightRows, kRows>(x, w.columns, data + n * w.columns, apart, scales_at(n), y + n - begin,
                             ldy);
  }
  for (auto n = begin + apart * kWeightRows; n < end; ++n) {
    dots<1, kRows>(x, w.columns, data + n * w.columns, 0, scales_at(n), y + n - begin, ldy);
  }
}

// So many weight rows at once that sums and weights stay in 16 registers.
template <typename T>
void multiply_few_as(const T* data,
                     const float* x,
                     int64_t rows,
                     const Matrix& w,
                     int64_t begin,
                     int64_t end,
                     float* y,
                     int64_t ldy) {
  switch (rows) {
    case 1:
      return multiply_rows<4, 1>(data, x, w, begin, end, y, ldy);
    case 2:
      return multiply_rows<4, 2>(data, x, w, begin, end, y, ldy);
    case 3:
      return multiply_rows<2, 3>(data, x, w, begin, end, y, ldy);
    case 4:
      return multiply_rows<2, 4>(data, x, w, begin, end, y, ldy);
    case 5:
      return multiply_rows<2, 5>(data, x, w, begin, end, y, ldy);
    case 6:
      return multiply_rows<2, 6>(data, x, w, begin, end, y, ldy);
    case 7:
      return multiply_rows<1, 7>(data, x, w, begin, end, y, ldy);
    case 8:
      return multiply_rows<1, 8>(data, x, w, begin, end, y, ldy);
    default:
      return;
  }
}

void multiply_few(const float* x,
                  int64_t rows,
                  const Matrix& w,
                  int64_t begin,
                  int64_t end,
                  float* y,
                  int64_t ldy) {
  visit(w, [&](const auto* data) { multiply_few_as(data, x, rows, w, begin, end, y, ldy); });
}

constexpr int64_t kPanelRows = 2 * kLanes;

// Blocks of packed_block(columns) columns; in a block groups of kPackedRows rows; in a group the
// columns, each with its kPackedRows numbers.
void pack_rows(const float* x, int64_t rows, int64_t columns, int64_t group, float* packed) {
  const auto block = packed_block(columns);
  const auto groups = round_up(rows, kPackedRows) / kPackedRows;
  const auto first = group * kPackedRows;
  const auto present = rows - first < kPackedRows ? rows - first : kPackedRows;
  for (int64_t begin = 0; begin < columns; begin += block) {
    const auto width = columns - begin < block ? columns - begin : block;
    auto* out = packed + begin * groups * kPackedRows + group * kPackedRows * width;
    for (int64_t r = 0; r < kPackedRows; ++r) {
      const auto* from = x + (first + r) * columns + begin;
      for (int64_t i = 0; i < width; ++i) out[i * kPackedRows + r] = r < present ? from[i] : 0.0F;
    }
  }
}

#ifdef __AVX2__
// Eight vectors of eight, rows to columns.
inline void transpose(Floats (&v)[8]) {
  Floats t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
  }
  Floats u[8];
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    v[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  }
}
#else
inline void transpose(Floats (&v)[4]) {
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < i; ++j) {
      const auto swapped = v[i][j];
      v[i][j] = v[j][i];
      v[j][i] = swapped;
    }
  }
}
#endif

// kPanelRows rows of any address, as columns of kPanelRows numbers: `width` columns.
// row(r) is the address of row r, or nullptr for a row of zeros.
template <typename Row>
void pack_panel(const Row& row, int64_t width, float* packed) {
  for (int64_t half = 0; half < 2; ++half) {
    for (int64_t i = 0; i < width; i += kLanes) {
      const auto count = width - i < kLanes ? width - i : kLanes;
      Floats v[kLanes];
      for (int64_t r = 0; r < kLanes; ++r) {
        const auto* from = row(half * kLanes + r);
        if (from == nullptr) {
          v[r] = zeros();
        } else {
          v[r] = count == kLanes ? load(from + i) : load_part(from + i, count);
        }
      }
      transpose(v);
      for (int64_t c = 0; c < count; ++c)
        store(packed + (i + c) * kPanelRows + half * kLanes, v[c]);
    }
  }
}

// c[r][0 .. kPanelRows) = (c +) sum over k of a[k][r] * b[k][0 .. kPanelRows).
inline void multiply_tile(
    int64_t size, const float* a, const float* b, bool add, float* c, int64_t ldc) {
  Floats sums[kPackedRows][2];
  for (int64_t r = 0; r < kPackedRows; ++r) {
    for (int64_t h = 0; h < 2; ++h) {
      sums[r][h] = add ? load(c + r * ldc + h * kLanes) : zeros();
    }
  }
#pragma GCC unroll 4
  for (int64_t k = 0; k < size; ++k) {
    const auto low = load(b + k * kPanelRows);
    const auto high = load(b + k * kPanelRows + kLanes);
#pragma GCC unroll 6
    for (int64_t r = 0; r < kPackedRows; ++r) {
      const auto x = splat(a[k * kPackedRows + r]);
      sums[r][0] = fma(x, low, sums[r][0]);
      sums[r][1] = fma(x, high, sums[r][1]);
    }
  }
  for (int64_t r = 0; r < kPackedRows; ++r) {
    for (int64_t h = 0; h < 2; ++h) store(c + r * ldc + h * kLanes, sums[r][h]);
  }
}

// As multiply_tile, for a tile of which only `rows` and `columns` are part of c.
inline void multiply_edge(int64_t size,
                          const float* a,
                          const float* b,
                          bool add,
                          float* c,
                          int64_t ldc,
                          int64_t rows,
                          int64_t columns) {
  float whole[kPackedRows * kPanelRows] = {};
  for (int64_t r = 0; add && r < rows; ++r) {
    std::memcpy(whole + r * kPanelRows, c + r * ldc, columns * sizeof(float));
  }
  multiply_tile(size, a, b, add, whole, kPanelRows);
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(c + r * ldc, whole + r * kPanelRows, columns * sizeof(float));
  }
}

// The panel's columns [begin, begin + width), packed.
void pack_weights(const Matrix& w, int64_t panel, int64_t begin, int64_t width, float* scratch) {
  const auto first = panel * kPanelRows;
  const auto present = w.rows - first < kPanelRows ? w.rows - first : kPanelRows;
  if (w.type == WeightType::kInt4) {
    auto* const wide = scratch + kPanelRows * kPackedColumns;
    for (int64_t r = 0; r < present; ++r) read_int4(w, first + r, begin, width, wide + r * width);
    pack_panel([&](int64_t r) { return r < present ? wide + r * width : nullptr; }, width, scratch);
    return;
  }
  visit(w, [&](const auto* data) {
    pack_panel(
        [&](int64_t r) { return r < present ? data + (first + r) * w.columns + begin : nullptr; },
        width, scratch);
  });
}

void multiply_many(const float* packed,
                   int64_t rows,
                   const Matrix& w,
                   int64_t panel,
                   float* y,
                   int64_t ldy,
                   float* scratch) {
  const auto first = panel * kPanelRows;
  const auto present = w.rows - first < kPanelRows ? w.rows - first : kPanelRows;
  const auto padded_rows = round_up(rows, kPackedRows);
  const auto block = packed_block(w.columns);
  for (int64_t begin = 0; begin < w.columns; begin += block) {
    const auto width = w.columns - begin < block ? w.columns - begin : block;
    pack_weights(w, panel, begin, width, scratch);
    const auto* a = packed + begin * padded_rows;
    for (int64_t m = 0; m < rows; m += kPackedRows, a += kPackedRows * width) {
      auto* const c = y + m * ldy;
      const auto count = rows - m < kPackedRows ? rows - m : kPackedRows;
      if (count == kPackedRows && present == kPanelRows) {
        multiply_tile(width, a, scratch, begin > 0, c, ldy);
      } else {
        multiply_edge(width, a, scratch, begin > 0, c, ldy, count, present);
      }
    }
  }
  if (w.scales == nullptr) return;
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t n = 0; n < present; ++n) y[m * ldy + n] *= w.scales[first + n];
  }
}

template <typename T>
void read_row_as(const T* row, int64_t columns, float scale, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) store(out + i, load(row + i) * scale);
  if (i < columns) store_part(out + i, load_part(row + i, columns - i) * scale, columns - i);
}

void read_row(const Matrix& w, int64_t row, float* out) {
  if (w.type == WeightType::kInt4) return read_int4(w, row, 0, w.columns, out);
  const auto scale = w.scales == nullptr ? 1.0F : w.scales[row];
  visit(w, [&](const auto* data) { read_row_as(data + row * w.columns, w.columns, scale, out); });
}

}  // namespace
}  // namespace gemma::cpu
