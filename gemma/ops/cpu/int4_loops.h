#pragma once

#include <gemma/ops/cpu/integers.h>
#include <gemma/ops/cpu/tiles.h>

// 4-bit weights times 8-bit activations, both in groups of kGroup with a scale each. A group's
// bytes hold its first half in their lower bits and its second half in their upper ones, 8 too
// large.
namespace gemma::cpu {
namespace {

constexpr int64_t kGroupBytes = kGroup / 2;
constexpr int64_t kTwoGroups = 2 * kGroup;

// Groups that are taken together: rows have a multiple of so many in every Gemma.
constexpr int64_t kStepGroups = 4;
// How often a vector holds a number of each of them.
constexpr int64_t kCopies = kLanes / kStepGroups;

// Two groups are multiplied at once: of values, as of the weights' bytes, their first halves come
// before their second ones. A group without a partner has zeros for it.
void quantize_int8(const float* x, int64_t columns, int8_t* values, float* scales, float* offsets) {
  const auto groups = columns / kGroup;
  for (int64_t g = 0; g < groups; ++g) {
    int8_t numbers[kGroup];
    scales[g] = to_integers(x + g * kGroup, kGroup, 127.0F, numbers);
    auto* const to = values + g / 2 * kTwoGroups + g % 2 * kGroupBytes;
    std::memcpy(to, numbers, kGroupBytes);
    std::memcpy(to + kGroup, numbers + kGroupBytes, kGroupBytes);
    int32_t total = 0;
    for (const auto number : numbers) total += number;
    offsets[g] = -8.0F / kCopies * scales[g] * static_cast<float>(total);
  }
  if (groups % 2 == 1) {
    auto* const to = values + groups / 2 * kTwoGroups + kGroupBytes;
    std::memset(to, 0, kGroupBytes);
    std::memset(to + kGroup, 0, kGroupBytes);
  }
}

// Two groups' weights, 8 too large, times their activations: the first group's product is in the
// first half of the lanes.
inline Floats two_groups(const uint8_t* weights, const int8_t* values) {
#ifdef __AVX2__
  const auto bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
  const auto* const x = reinterpret_cast<const __m256i*>(values);
  const auto mask = _mm256_set1_epi8(15);
  const auto low = _mm256_and_si256(bytes, mask);
  const auto high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
  // At most 4 * 15 * 127 in magnitude.
  const auto pairs = _mm256_add_epi16(_mm256_maddubs_epi16(low, _mm256_loadu_si256(x)),
                                      _mm256_maddubs_epi16(high, _mm256_loadu_si256(x + 1)));
  return _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#else
  Ints totals{};
  for (int64_t i = 0; i < kGroup; ++i) {
    totals[i / kGroupBytes * (kLanes / 2)] +=
        (weights[i] & 15) * values[i] + (weights[i] >> 4) * values[kGroup + i];
  }
  return to_floats(totals);
#endif
}

#ifdef __AVX2__
// kStepGroups numbers, kCopies times.
inline Floats load_step(const float* from) {
  return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(from));
}
inline Floats load_step(const Float16* from) {
  int64_t numbers;
  std::memcpy(&numbers, from, sizeof(numbers));
  return _mm256_cvtph_ps(_mm_set1_epi64x(numbers));
}
#else
template <typename T>
Floats load_step(const T* from) {
  return load(from);
}
#endif

// The step's number 2 pair in the first half of the lanes, 2 pair + 1 in the second.
inline Floats spread(Floats v, int64_t pair) {
#ifdef __AVX2__
  const auto at = static_cast<int32_t>(2 * pair);
  return _mm256_permutevar_ps(v, _mm256_setr_epi32(at, at, at, at, at + 1, at + 1, at + 1, at + 1));
#else
  return Floats{v[2 * pair], v[2 * pair], v[2 * pair + 1], v[2 * pair + 1]};
#endif
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
  const auto ldx = round_up(groups, 2) * kGroup;
  Floats sums[kWeightRows][kRows] = {};
  // kStepGroups groups from `first`, of which there are `count`.
  const auto step = [&](int64_t first, int64_t count, const auto& load_at,
                        const auto& weights_at) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int r = 0; r < kWeightRows; ++r) {
      const auto of_weights = load_at(scales + r * ld_scales + first);
      const auto* const bytes = w + r * ldw + first * kGroupBytes;
      prefetch(bytes + kIntegerPrefetch);
      for (int c = 0; c < kRows; ++c) {
        const auto both = of_weights * load_at(x.scales + c * groups + first);
        sums[r][c] = fma(of_weights, load_at(x.offsets + c * groups + first), sums[r][c]);
#pragma GCC unroll 2
        for (int64_t pair = 0; pair < kStepGroups / 2; ++pair) {
          if (2 * pair >= count) break;
          const auto products = two_groups(weights_at(bytes + pair * kGroup, count - 2 * pair),
                                           x.values + c * ldx + (first + 2 * pair) * kGroup);
          sums[r][c] = fma(products, spread(both, pair), sums[r][c]);
        }
      }
    }
  };
  int64_t first = 0;
  for (; first + kStepGroups <= groups; first += kStepGroups) {
    step(
        first, kStepGroups, [](const auto* from) { return load_step(from); },
        [](const uint8_t* bytes, int64_t /*left*/) { return bytes; });
  }
  if (first < groups) {
    uint8_t padded[kGroup] = {};
    step(
        first, groups - first,
        [&]<typename T>(const T* from) {
          T numbers[kStepGroups] = {};
          std::memcpy(numbers, from, (groups - first) * sizeof(T));
          return load_step(numbers);
        },
        [&](const uint8_t* bytes, int64_t left) -> const uint8_t* {
          if (left > 1) return bytes;
          std::memcpy(padded, bytes, kGroupBytes);
          return padded;
        });
  }
  for (int c = 0; c < kRows; ++c) {
    for (int r = 0; r < kWeightRows; ++r) y[c * ldy + r * apart] = sum(sums[r][c]);
  }
}

void multiply_int4(const Int8Rows& x,
                   int64_t rows,
                   const Matrix& w,
                   int64_t begin,
                   int64_t end,
                   float* y,
                   int64_t ldy) {
  const auto groups = w.columns / kGroup;
  const auto* const data = static_cast<const uint8_t*>(w.data);
  with_rows<4>(rows, [&](auto weight_rows, auto count) {
    stretches<weight_rows>(begin, end, [&](auto together, int64_t n, int64_t apart) {
      int4_dots<together, count>(x, data + n * groups * kGroupBytes, w.group_scales + n * groups,
                                 groups, apart, y + n - begin, ldy);
    });
  });
}

// Columns [begin, begin + width) of a row, both multiples of kGroup.
void read_int4(const Matrix& w, int64_t row, int64_t begin, int64_t width, float* out) {
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
