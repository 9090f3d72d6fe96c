#pragma once

#include <immintrin.h>

#include <gemma/ops/cpu/vector/gather_halves.h>
#include <gemma/ops/cpu/vector/vectors.h>

// What simd.h says, for AVX2 with FMA and F16C.
namespace gemma::cpu {
namespace {

inline Floats splat(float value) { return _mm256_set1_ps(value); }

// By hand, as GCC 12 widens in two halves.
inline Floats load(const BFloat16* from) {
  const auto half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

inline Floats load(const Float16* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

inline Floats load(const int8_t* from) {
  const auto bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}

inline Ints load_bytes(const uint8_t* from) {
  const auto bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return bits<Ints>(_mm256_cvtepu8_epi32(bytes));
}

inline Pairs load_pairs(const int8_t* from) {
  return bits<Pairs>(_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}

inline Pairs load_pairs(const uint8_t* from) {
  return bits<Pairs>(_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}

inline Pairs load_nibbles(const uint8_t* from, int64_t part) {
  const auto bytes = load_pairs(from);
  return part == 0 ? bytes & 15 : bytes >> 4;
}

inline Pairs load_nibbles(const uint8_t* from, const int8_t (&table)[16], int64_t part) {
  const auto values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  const auto bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const auto nibbles =
      _mm_and_si128(part == 0 ? bytes : _mm_srli_epi16(bytes, 4), _mm_set1_epi8(15));
  return bits<Pairs>(_mm256_cvtepi8_epi16(_mm_shuffle_epi8(values, nibbles)));
}

inline Pairs spread_bits(uint32_t from, int64_t part) {
  const auto own =
      _mm256_setr_epi16(1, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 9,
                        1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, INT16_MIN);
  const auto all = _mm256_set1_epi16(static_cast<int16_t>(from >> 16 * part));
  return bits<Pairs>(_mm256_cmpeq_epi16(_mm256_and_si256(all, own), own));
}

inline Pairs splat_two(const int32_t* pairs, int64_t part) {
  return bits<Pairs>(Ints{} + pairs[part]);
}

inline float to_float(Float16 half) {
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half.bits)));
}

template <int64_t kStride>
inline __attribute__((always_inline)) void gather(const std::byte* from,
                                                  int64_t count,
                                                  float (&to)[8]) {
  _mm256_storeu_ps(to, gather_halves<kStride>(from, count));
}

inline Ints add_products(Pairs a, Pairs b, Ints sum) {
  return sum + bits<Ints>(_mm256_madd_epi16(bits<__m256i>(a), bits<__m256i>(b)));
}

inline Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }

inline Floats max(Floats a, Floats b) { return a > b ? a : b; }
inline Floats min(Floats a, Floats b) { return a < b ? a : b; }

inline Floats sqrt(Floats v) { return _mm256_sqrt_ps(v); }

inline float sum(Floats v) {
  auto half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}

inline void sum_each(const Floats (&v)[4], float (&out)[4]) {
  __m256 pairs[2];
  for (int i = 0; i < 2; ++i) {
    pairs[i] = _mm256_add_ps(_mm256_permute2f128_ps(v[2 * i], v[2 * i + 1], 0x20),
                             _mm256_permute2f128_ps(v[2 * i], v[2 * i + 1], 0x31));
  }
  const auto a = _mm256_castps_pd(pairs[0]), b = _mm256_castps_pd(pairs[1]);
  const auto quads = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)),
                                   _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
  // The sums of the even vectors, then those of the odd ones.
  float sums[8];
  _mm256_storeu_ps(sums, _mm256_add_ps(_mm256_shuffle_ps(quads, quads, 0x88),
                                       _mm256_shuffle_ps(quads, quads, 0xdd)));
  for (int i = 0; i < 4; ++i) out[i] = sums[i / 2 + i % 2 * 4];
}

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

inline Floats spread(const Float16* from) {
  int32_t numbers;
  std::memcpy(&numbers, from, sizeof(numbers));
  const auto two = _mm256_cvtph_ps(_mm_set1_epi32(numbers));
  return _mm256_permutevar_ps(two, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
}

inline Ints add_nibble_products(const uint8_t* nibbles,
                                const int8_t* low,
                                const int8_t* high,
                                Ints sum) {
  const auto bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(nibbles));
  const auto mask = _mm256_set1_epi8(15);
  const auto lows = _mm256_and_si256(bytes, mask);
  const auto highs = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
  const auto values = [](const int8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  };
  // At most 4 * 15 * 127 in magnitude.
  const auto pairs = _mm256_add_epi16(_mm256_maddubs_epi16(lows, values(low)),
                                      _mm256_maddubs_epi16(highs, values(high)));
  return sum + bits<Ints>(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

}  // namespace
}  // namespace gemma::cpu
