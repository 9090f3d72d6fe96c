#pragma once

#include <gemma/ops/cpu/vector/blocking.h>
#include <gemma/ops/cpu/vector/integers.h>

// 4-bit weights times 8-bit activations, both in groups of kGroup with a scale each. A group's
// bytes hold its first half in their lower bits and its second half in their upper ones, 8 too
// large.
namespace gemma::cpu {
namespace {

constexpr int64_t kGroupBytes = kGroup / 2;
// Groups whose bytes one vector holds.
constexpr int64_t kVectorGroups = kLanes / 4;
// Groups that are taken together: rows have a multiple of this number in every Gemma.
constexpr int64_t kStepGroups = 4;
static_assert(kStepGroups % kVectorGroups == 0);
// How often a vector holds a number of each of them.
constexpr int64_t kCopies = kLanes / kStepGroups;

// Rows' values have room for a multiple of this many groups.
constexpr int64_t kInt8RowGroups = 4;
inline int64_t int8_columns(int64_t columns) { return round_up(columns, kInt8RowGroups * kGroup); }

// Rows of activations for 4-bit weights: 8 bits a number, a scale for each group. `offsets`
// correct for weights that are stored as their value plus 8.
struct Int8Rows {
  const int8_t* values;  // [rows, int8_columns(columns)]
  const float* scales;   // [rows, columns / kGroup]
  const float* offsets;  // Likewise.
};

// kVectorGroups groups are multiplied at once: of values, as of the weights' bytes, their first
// halves come before their second ones. Groups that are missing there are zeros.
inline void quantize_int8(
    const float* x, int64_t columns, int8_t* values, float* scales, float* offsets) {
  const auto groups = columns / kGroup;
  for (int64_t g = 0; g < round_up(groups, kVectorGroups); ++g) {
    int8_t numbers[kGroup] = {};
    if (g < groups) {
      scales[g] = to_integers(x + g * kGroup, kGroup, 127.0F, numbers);
      int32_t total = 0;
      for (const auto number : numbers) total += number;
      offsets[g] = -8.0F / kCopies * scales[g] * static_cast<float>(total);
    }
    auto* const to =
        values + g / kVectorGroups * kVectorGroups * kGroup + g % kVectorGroups * kGroupBytes;
    std::memcpy(to, numbers, kGroupBytes);
    std::memcpy(to + kVectorGroups * kGroupBytes, numbers + kGroupBytes, kGroupBytes);
  }
}

// y[c][r * apart] = x[c] . w[r * apart] for kWeightRows rows of w and kRows rows of x.
template <int kWeightRows, int kRows>
void int4_dots(const Int8Rows& x,
               const uint8_t* w,
               const Float16* scales,
               int64_t groups,
               int64_t apart,
               float* y,
               int64_t ldy) {
  const auto ld_scales = apart * groups;
  const auto ldw = ld_scales * kGroupBytes;
  const auto ldx = int8_columns(groups * kGroup);
  ask_to_write<kWeightRows, kRows>(apart, y, ldy);
  Floats sums[kWeightRows][kRows] = {};
  // kStepGroups groups from `first`, of which there are `count`.
  const auto step = [&](int64_t first, int64_t count, const auto& load_at,
                        const auto& weights_at) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int r = 0; r < kWeightRows; ++r) {
      const auto of_weights = load_at(scales + r * ld_scales + first);
      const auto* const bytes = w + r * ldw + first * kGroupBytes;
      prefetch_weights(bytes + kIntegerPrefetch);
      for (int c = 0; c < kRows; ++c) {
        const auto both = of_weights * load_at(x.scales + c * groups + first);
        sums[r][c] = fma(of_weights, load_at(x.offsets + c * groups + first), sums[r][c]);
#pragma GCC unroll 4
        for (int64_t g = 0; g < kStepGroups; g += kVectorGroups) {
          if (g >= count) break;
          const auto* const values = x.values + c * ldx + (first + g) * kGroup;
          const auto products = nibble_products(weights_at(bytes + g * kGroupBytes, count - g),
                                                values, values + kVectorGroups * kGroupBytes);
          sums[r][c] = fma(to_floats(products), spread(both, g), sums[r][c]);
        }
      }
    }
  };
  int64_t first = 0;
  for (; first + kStepGroups <= groups; first += kStepGroups) {
    step(
        first, kStepGroups, [](const auto* from) { return repeat(from); },
        [](const uint8_t* bytes, int64_t /*left*/) { return bytes; });
  }
  if (first < groups) {
    uint8_t padded[kVectorGroups * kGroupBytes] = {};
    step(
        first, groups - first,
        [&]<typename T>(const T* from) {
          T numbers[kStepGroups] = {};
          std::memcpy(numbers, from, (groups - first) * sizeof(T));
          return repeat(numbers);
        },
        [&](const uint8_t* bytes, int64_t left) -> const uint8_t* {
          if (left >= kVectorGroups) return bytes;
          std::memcpy(padded, bytes, left * kGroupBytes);
          return padded;
        });
  }
  for (int r = 0; r < kWeightRows; ++r) {
    float totals[kRows];
    sum_each(sums[r], totals);
    for (int c = 0; c < kRows; ++c) y[c * ldy + r * apart] = totals[c];
  }
}

inline void gemv_int4(const Int8Rows& x,
                      int64_t rows,
                      const WeightView& w,
                      int64_t begin,
                      int64_t end,
                      float* y,
                      int64_t ldy) {
  const auto groups = w.columns / kGroup;
  const auto* const data = static_cast<const uint8_t*>(w.data);
  const auto ldx = int8_columns(w.columns);
  with_weight_rows<4>(rows, [&](auto weight_rows) {
    stretches<weight_rows>(begin, end, [&](auto together, int64_t n, int64_t apart) {
      each_group(rows, [&](auto count, int64_t first) {
        int4_dots<together, count>(
            {x.values + first * ldx, x.scales + first * groups, x.offsets + first * groups},
            data + n * groups * kGroupBytes, w.group_scales + n * groups, groups, apart,
            y + first * ldy + n - begin, ldy);
      });
    });
  });
}

// Columns [begin, begin + width) of a row, both multiples of kGroup.
void read_int4(const WeightView& w, int64_t row, int64_t begin, int64_t width, float* out) {
  const auto groups = w.columns / kGroup;
  for (int64_t g = begin / kGroup; g < (begin + width) / kGroup; ++g, out += kGroup) {
    const auto* bytes = static_cast<const uint8_t*>(w.data) + (row * groups + g) * kGroupBytes;
    const auto* scale = w.group_scales + row * groups + g;
    const auto factor = splat(load_part(scale, 1)[0]);
    for (int64_t i = 0; i < kGroupBytes; i += kLanes) {
      const auto both = load_bytes(bytes + i);
      store(out + i, to_floats((both & 15) - 8) * factor);
      store(out + kGroupBytes + i, to_floats((both >> 4) - 8) * factor);
    }
  }
}

}  // namespace
}  // namespace gemma::cpu
