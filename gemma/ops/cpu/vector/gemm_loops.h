#pragma once

#include <gemma/ops/cpu/vector/block_loops.h>
#include <gemma/ops/cpu/vector/blocking.h>

// Products of activations with weights that are floats.
namespace gemma::cpu {
namespace {

// Blocks of packed_block(columns) columns; in a block groups of kMr rows; in a group the
// columns, each with its kMr numbers.
inline void pack_floats(
    const float* x, int64_t rows, int64_t columns, int64_t group, float* packed) {
  const auto padded_rows = round_up(rows, kMr);
  const auto first = group * kMr;
  each_block(columns, [&](int64_t begin, int64_t width) {
    const auto row = [&](int64_t r) {
      return first + r < rows ? x + (first + r) * columns + begin : nullptr;
    };
    pack_mr(row, load_up_to(width), width, packed + begin * padded_rows + first * width);
  });
}

// c[r][0 .. kNr) = (c +) sum over k of a[k][r] * b[k][0 .. kNr). Memory has the time
// of the products to bring c.
inline void multiply_tile(
    int64_t size, const float* a, const float* b, bool add, float* c, int64_t ldc) {
  Floats sums[kMr][2] = {};
  for (int64_t r = 0; r < kMr; ++r) prefetch_to_write(c + r * ldc);
#pragma GCC unroll 4
  for (int64_t k = 0; k < size; ++k) {
    const auto low = load(b + k * kNr);
    const auto high = load(b + k * kNr + kLanes);
#pragma GCC unroll 12
    for (int64_t r = 0; r < kMr; ++r) {
      const auto x = splat(a[k * kMr + r]);
      sums[r][0] = fma(x, low, sums[r][0]);
      sums[r][1] = fma(x, high, sums[r][1]);
    }
  }
  for (int64_t r = 0; r < kMr; ++r) {
    for (int64_t h = 0; h < 2; ++h) {
      auto* const to = c + r * ldc + h * kLanes;
      store(to, add ? load(to) + sums[r][h] : sums[r][h]);
    }
  }
}

// Rows [0, present) of floats, `columns` apart, by pack_nr. Memory is asked for what lies under
// them, of the panel that most often comes next: it has the time of this one's products.
template <typename T>
void pack_rows(const T* data, int64_t columns, int64_t present, int64_t width, float* packed) {
  const auto row = [&](int64_t r) { return r < present ? data + r * columns : nullptr; };
  const auto load = [&, load = load_up_to(width)](const T* from, int64_t i) {
    prefetch_weights(from + kNr * columns + i);
    return load(from, i);
  };
  pack_nr(row, load, width, packed);
}

// The same, but pairs of columns are moved together: they have the bits of one float.
inline void pack_rows(
    const BFloat16* data, int64_t columns, int64_t present, int64_t width, float* packed) {
  for (int64_t half = 0; half < kNr; half += kLanes) {
    each_step<2 * kLanes>(width, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
      Floats pairs[kLanes] = {};
#pragma GCC unroll 16
      for (int64_t r = 0; r < kLanes; ++r) {
        // The results of missing rows are not read.
        const auto* const row = data + (half + r < present ? half + r : present - 1) * columns + i;
        prefetch_weights(row + kNr * columns);
        std::memcpy(&pairs[r], row, count * sizeof(BFloat16));
      }
      transpose(pairs);
      auto* const to = packed + i * kNr + half;
#pragma GCC unroll 32
      for (int64_t c = 0; c < count; ++c) {
        const auto pair = bits<Words>(pairs[c / 2]);
        store(to + c * kNr, bits<Floats>(c % 2 == 0 ? pair << 16 : pair & 0xffff0000U));
      }
    });
  }
}

// The panel's columns [begin, begin + width), packed; `rows` is memory for them as they are read.
inline void pack_weights(
    const WeightView& w, int64_t panel, int64_t begin, int64_t width, float* packed, float* rows) {
  if (w.type == WeightType::kBlocks) {
    const auto present = rows_in_panel(w, panel);
    for (int64_t r = 0; r < present; ++r) {
      read_blocks(w, panel * kNr + r, begin, width, rows + r * width);
    }
    const auto row = [&](int64_t r) { return r < present ? rows + r * width : nullptr; };
    return pack_nr(row, load_up_to(width), width, packed);
  }
  visit_floats(w, [&](const auto* data) {
    pack_rows(data + panel * kNr * w.columns + begin, w.columns, rows_in_panel(w, panel), width,
              packed);
  });
}

inline void gemm_floats(const PackedRows& x,
                        const WeightView& w,
                        int64_t panel,
                        float* y,
                        int64_t ldy,
                        float* scratch) {
  const auto present = rows_in_panel(w, panel);
  const auto padded_rows = round_up(x.rows, kMr);
  const auto* const packed = reinterpret_cast<const float*>(x.data);
  each_block(w.columns, [&](int64_t begin, int64_t width) {
    pack_weights(w, panel, begin, width, scratch, scratch + kNr * kKc);
    for (auto m = x.begin; m < x.end; m += kMr) {
      const auto* const a = packed + begin * padded_rows + m * width;
      const auto count = x.end - m < kMr ? x.end - m : kMr;
      with_tile(
          count, present, begin > 0, y + (m - x.begin) * ldy, ldy,
          [&](float* c, int64_t ldc) { multiply_tile(width, a, scratch, begin > 0, c, ldc); });
    }
  });
}

}  // namespace
}  // namespace gemma::cpu
