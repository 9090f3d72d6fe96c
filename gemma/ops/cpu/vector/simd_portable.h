#pragma once

#include <gemma/ops/cpu/vector/vectors.h>

// What simd.h says, in portable C++.
namespace gemma::cpu {
namespace {

inline Floats splat(float value) { return Floats{value, value, value, value}; }

inline Floats load(const BFloat16* from) {
  Shorts half;
  std::memcpy(&half, from, sizeof(half));
  return bits<Floats>(__builtin_convertvector(half, Ints) << 16);
}

inline float to_float(Float16 half) {
  // By way of a float32 with the half's exponent and fraction, 2^112 times too small.
  const uint32_t magnitude = static_cast<uint32_t>(half.bits & 0x7fff) << 13;
  auto result = bits<uint32_t>(bits<float>(magnitude) * 0x1p112F);
  if (magnitude >= 0x0f800000) result |= 0x7f800000;  // Infinity and NaN.
  return bits<float>(result | static_cast<uint32_t>(half.bits & 0x8000) << 16);
}

inline Floats load(const Float16* from) {
  Floats to;
  for (int64_t i = 0; i < kLanes; ++i) to[i] = to_float(from[i]);
  return to;
}

inline Floats load(const int8_t* from) {
  Floats to;
  for (int64_t i = 0; i < kLanes; ++i) to[i] = from[i];
  return to;
}

inline Ints load_bytes(const uint8_t* from) { return Ints{from[0], from[1], from[2], from[3]}; }

inline Pairs load_pairs(const int8_t* from) {
  Pairs to;
  for (int64_t i = 0; i < 2 * kLanes; ++i) to[i] = from[i];
  return to;
}

inline Pairs load_pairs(const uint8_t* from) {
  Pairs to;
  for (int64_t i = 0; i < 2 * kLanes; ++i) to[i] = from[i];
  return to;
}

inline Pairs load_nibbles(const uint8_t* from, int64_t part) {
  const auto bytes = load_pairs(from + part % 2 * 2 * kLanes);
  return part < 2 ? bytes & 15 : bytes >> 4;
}

inline Pairs load_nibbles(const uint8_t* from, const int8_t (&table)[16], int64_t part) {
  auto nibbles = load_nibbles(from, part);
  for (int64_t i = 0; i < 2 * kLanes; ++i) nibbles[i] = table[nibbles[i]];
  return nibbles;
}

inline Pairs spread_bits(uint32_t from, int64_t part) {
  Pairs to;
  for (int64_t i = 0; i < 2 * kLanes; ++i) to[i] = (from >> (part * 2 * kLanes + i) & 1U) ? -1 : 0;
  return to;
}

inline Pairs splat_two(const int32_t* pairs, int64_t part) {
  return bits<Pairs>(Ints{} + pairs[part / 2]);
}

template <int64_t kStride>
inline void gather(const std::byte* from, int64_t count, float (&to)[8]) {
  for (int64_t i = 0; i < count; ++i) {
    Float16 half;
    std::memcpy(&half, from + i * kStride, sizeof(half));
    to[i] = to_float(half);
  }
}

inline Ints add_products(Pairs a, Pairs b, Ints sum) {
  for (int64_t i = 0; i < kLanes; ++i) sum[i] += a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
  return sum;
}

inline Floats fma(Floats a, Floats b, Floats c) { return a * b + c; }

inline Floats max(Floats a, Floats b) { return a > b ? a : b; }
inline Floats min(Floats a, Floats b) { return a < b ? a : b; }

inline Floats sqrt(Floats v) {
  for (int64_t i = 0; i < kLanes; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
}

inline float sum(Floats v) { return (v[0] + v[2]) + (v[1] + v[3]); }

inline void transpose(Floats (&v)[4]) {
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < i; ++j) {
      const auto swapped = v[i][j];
      v[i][j] = v[j][i];
      v[j][i] = swapped;
    }
  }
}

inline Floats spread(const Float16* from) {
  const Float16 padded[kLanes] = {*from};
  return splat(load(padded)[0]);
}

inline Ints add_nibble_products(const uint8_t* nibbles,
                                const int8_t* low,
                                const int8_t* high,
                                Ints sum) {
  for (int64_t i = 0; i < 4 * kLanes; ++i) {
    sum[i / 4] += (nibbles[i] & 15) * low[i] + (nibbles[i] >> 4) * high[i];
  }
  return sum;
}

}  // namespace
}  // namespace gemma::cpu
