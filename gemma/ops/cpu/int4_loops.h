#pragma once

#include <gemma/ops/cpu/simd.h>

// 4-bit weights times 8-bit activations, both in groups of kGroup with a scale each. A group's
// bytes hold its first half in their lower bits and its second half in their upper ones, 8 too
// large.
namespace gemma::cpu {
namespace {

constexpr int64_t kGroupBytes = kGroup / 2;

// x in groups: x[i] ~ values[i] * scales[i / kGroup]. offsets[g] is what the group's weights, 8 too
// large, add too much.
void quantize_row(const float* x, int64_t columns, int8_t* values, float* scales, float* offsets) {
  for (int64_t g = 0; g < columns / kGroup; ++g, x += kGroup, values += kGroup) {
    auto peaks = zeros();
    for (int64_t i = 0; i < kGroup; i += kLanes) {
      peaks = max(peaks, max(load(x + i), -load(x + i)));
    }
    const auto scale = largest(peaks) / 127.0F;
    const auto inverse = scale == 0.0F ? 0.0F : 1.0F / scale;
    int32_t total = 0;
    for (int64_t i = 0; i < kGroup; ++i) {
      const auto scaled = x[i] * inverse;
      const auto rounded = static_cast<int32_t>(scaled + (scaled < 0.0F ? -0.5F : 0.5F));
      values[i] = static_cast<int8_t>(rounded);
      total += rounded;
    }
    scales[g] = scale;
    offsets[g] = -8.0F * scale * static_cast<float>(total);
  }
}

// The group's weights, 8 too large, times its activations.
#ifdef __AVX2__
inline Floats group_dots(const uint8_t* weights, const int8_t* values) {
  const auto bytes =
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights)));
  const auto shifted = _mm256_srlv_epi32(bytes, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4));
  const auto nibbles = _mm256_and_si256(shifted, _mm256_set1_epi8(15));
  const auto x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
  const auto pairs = _mm256_maddubs_epi16(nibbles, x);
  return _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#else
inline Floats group_dots(const uint8_t* weights, const int8_t* values) {
  int32_t total = 0;
  for (int64_t i = 0; i < kGroupBytes; ++i) {
    total += (weights[i] & 15) * values[i] + (weights[i] >> 4) * values[i + kGroupBytes];
  }
  return Floats{static_cast<float>(total)};
}
#endif

// y[c] = x[c] . w for kRows rows of x.
template <int kRows>
void int4_dots(const Int8Rows& x,
               const uint8_t* w,
               const Float16* scales,
               int64_t groups,
               float* y,
               int64_t ldy) {
  Floats sums[kRows] = {};
  Floats offsets[kRows] = {};
  for (int64_t first = 0; first < groups; first += kLanes) {
    const auto count = groups - first < kLanes ? groups - first : kLanes;
    const auto of_weights =
        count == kLanes ? load(scales + first) : load_part(scales + first, count);
    prefetch(w + first * kGroupBytes + 1024);
    prefetch(w + first * kGroupBytes + 1088);
    for (int c = 0; c < kRows; ++c) {
      const auto at = c * groups + first;
      const auto part = [&](const float* from) {
        return count == kLanes ? load(from + at) : load_part(from + at, count);
      };
      offsets[c] = fma(of_weights, part(x.offsets), offsets[c]);
      float both[kLanes];
      store(both, of_weights * part(x.scales));
      const auto* values = x.values + at * kGroup;
      for (int64_t g = 0; g < count; ++g) {
        const auto dots = group_dots(w + (first + g) * kGroupBytes, values + g * kGroup);
        sums[c] = fma(dots, splat(both[g]), sums[c]);
      }
    }
  }
  for (int c = 0; c < kRows; ++c) y[c * ldy] = sum(sums[c]) + sum(offsets[c]);
}

void multiply_int4(const Int8Rows& x,
                   int64_t rows,
                   const Matrix& w,
                   int64_t begin,
                   int64_t end,
                   float* y,
                   int64_t ldy) {
  const auto groups = w.columns / kGroup;
  const auto* data = static_cast<const uint8_t*>(w.data) + begin * groups * kGroupBytes;
  const auto* scales = w.group_scales + begin * groups;
  for (auto n = begin; n < end; ++n, ++y, data += groups * kGroupBytes, scales += groups) {
    switch (rows) {
      case 1:
        int4_dots<1>(x, data, scales, groups, y, ldy);
        break;
      case 2:
        int4_dots<2>(x, data, scales, groups, y, ldy);
        break;
      case 3:
        int4_dots<3>(x, data, scales, groups, y, ldy);
        break;
      case 4:
        int4_dots<4>(x, data, scales, groups, y, ldy);
        break;
      case 5:
        int4_dots<5>(x, data, scales, groups, y, ldy);
        break;
      case 6:
        int4_dots<6>(x, data, scales, groups, y, ldy);
        break;
      case 7:
        int4_dots<7>(x, data, scales, groups, y, ldy);
        break;
      default:
        int4_dots<8>(x, data, scales, groups, y, ldy);
        break;
    }
  }
}

// Columns [begin, begin + width) of a row, both multiples of kGroup.
void read_int4(const Matrix& w, int64_t row, int64_t begin, int64_t width, float* out) {
  const auto groups = w.columns / kGroup;
  for (int64_t g = begin / kGroup; g < (begin + width) / kGroup; ++g, out += kGroup) {
    const auto* bytes = static_cast<const uint8_t*>(w.data) + (row * groups + g) * kGroupBytes;
    const auto* scale = w.group_scales + row * groups + g;
    const auto factor = splat(load_part(scale, 1)[0]);
    for (int64_t i = 0; i < kGroupBytes; i += kLanes) {
      int8_t low[kLanes], high[kLanes];
      for (int64_t j = 0; j < kLanes; ++j) {
        low[j] = static_cast<int8_t>((bytes[i + j] & 15) - 8);
        high[j] = static_cast<int8_t>((bytes[i + j] >> 4) - 8);
      }
      store(out + i, load(low) * factor);
      store(out + kGroupBytes + i, load(high) * factor);
    }
  }
}

}  // namespace
}  // namespace gemma::cpu
