#pragma once

#include <gemma/ops/cpu/vector/blocking.h>
#include <gemma/ops/cpu/vector/integers.h>

// 4-bit weights times 8-bit activations, both in groups of kGroup with a scale each. A group's
// bytes hold its first half in their lower bits and its second half in their upper ones, 8 too
// large.
namespace gemma::cpu {
namespace {

constexpr int64_t kGroupBytes = kGroup / 2;
// Lanes of a vector that hold sums of a group, and groups that one vector holds.
constexpr int64_t kGroupLanes = 4;
constexpr int64_t kVectorGroups = kLanes / kGroupLanes;

// Numbers, and lanes of sums, of a row of activations: whole vectors.
inline int64_t int8_columns(int64_t columns) { return round_up(columns, kVectorGroups * kGroup); }
inline int64_t int8_lanes(int64_t columns) { return int8_columns(columns) / kGroup * kGroupLanes; }

// Rows of activations for 4-bit weights: 8 bits a number. Weights are stored as their value plus 8:
// what sums begin with corrects for that.
struct Int8Rows {
  const int8_t* values;    // [rows, int8_columns(columns)]
  const float* scales;     // [rows, int8_lanes(columns)], of the lane's group
  const int32_t* offsets;  // Likewise.
};

// A vector's values, as those of the weights' bytes: the first halves of its groups come before
// their second ones. Groups that are missing there are zeros.
inline void quantize_int8(
    const float* x, int64_t columns, int8_t* values, float* scales, int32_t* offsets) {
  const auto groups = columns / kGroup;
  for (int64_t g = 0; g < round_up(groups, kVectorGroups); ++g) {
    int8_t numbers[kGroup] = {};
    float scale = 0.0F;
    int32_t total = 0;
    if (g < groups) {
      scale = to_integers(x + g * kGroup, kGroup, 127.0F, numbers);
      for (const auto number : numbers) total += number;
    }
    for (int64_t i = 0; i < kGroupLanes; ++i) {
      *scales++ = scale;
      *offsets++ = -8 / kGroupLanes * total;
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
  const auto ld_lanes = int8_lanes(groups * kGroup);
  ask_to_write<kWeightRows, kRows>(apart, y, ldy);
  Floats sums[kWeightRows][kRows];
  clear(sums);
  // The groups of a vector, from `first` on; whole(from) has as many numbers as these need.
  const auto step = [&](int64_t first, const auto& whole) __attribute__((always_inline)) {
    const auto* const values = x.values + first * kGroup;
    const auto lane = first * kGroupLanes;
#pragma GCC unroll 4
    for (int r = 0; r < kWeightRows; ++r) {
      const auto of_weights = spread(whole(scales + r * ld_scales + first, 1));
      const auto* const bytes = whole(w + r * ldw + first * kGroupBytes, kGroupBytes);
#pragma GCC unroll 8
      for (int c = 0; c < kRows; ++c) {
        const auto* const low = values + c * ldx;
        const auto products = add_nibble_products(bytes, low, low + kVectorGroups * kGroupBytes,
                                                  load_ints(x.offsets + c * ld_lanes + lane));
        const auto both = of_weights * load(x.scales + c * ld_lanes + lane);
        sums[r][c] = fma(to_floats(products), both, sums[r][c]);
      }
    }
  };
  int64_t first = 0;
  for (; first + kVectorGroups <= groups; first += kVectorGroups) {
    for (int r = 0; r < kWeightRows; ++r) {
      prefetch_weights(w + r * ldw + first * kGroupBytes + kIntegerPrefetch);
    }
    step(first, [](const auto* from, int64_t /*of_group*/) { return from; });
  }
  if (first < groups) {
    uint8_t padded[kVectorGroups * kGroupBytes];
    Float16 padded_scales[kVectorGroups];
    const auto pad = [&](const auto* from, auto* to, int64_t of_group) {
      std::memset(to, 0, kVectorGroups * of_group * sizeof(*from));
      std::memcpy(to, from, (groups - first) * of_group * sizeof(*from));
      return to;
    };
    step(first, [&]<typename T>(const T* from, int64_t of_group) -> const T* {
      if constexpr (sizeof(T) == 1)
        return pad(from, padded, of_group);
      else
        return pad(from, padded_scales, of_group);
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
  const auto lanes = int8_lanes(w.columns);
  with_weight_rows<4>(rows, [&](auto weight_rows) {
    stretches<weight_rows>(begin, end, [&](auto together, int64_t n, int64_t apart) {
      each_group(rows, [&](auto count, int64_t first) {
        int4_dots<together, count>(
            {x.values + first * ldx, x.scales + first * lanes, x.offsets + first * lanes},
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
