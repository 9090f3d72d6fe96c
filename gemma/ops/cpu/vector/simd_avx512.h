#pragma once

#include <immintrin.h>

#include <gemma/ops/cpu/vector/gather_halves.h>
#include <gemma/ops/cpu/vector/vectors.h>

// What simd.h says, for AVX-512 with its integer instructions (F, BW, DQ, VL, VNNI).
namespace gemma::cpu {
namespace {

inline Floats splat(float value) { return _mm512_set1_ps(value); }

inline Floats load(const BFloat16* from) {
  const auto half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

inline Floats load(const Float16* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

inline Floats load(const int8_t* from) {
  const auto bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}

inline Ints load_bytes(const uint8_t* from) {
  const auto bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return bits<Ints>(_mm512_cvtepu8_epi32(bytes));
}

inline Pairs load_pairs(const int8_t* from) {
  const auto bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return bits<Pairs>(_mm512_cvtepi8_epi16(bytes));
}

inline Pairs load_pairs(const uint8_t* from) {
  const auto bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return bits<Pairs>(_mm512_cvtepu8_epi16(bytes));
}

inline Pairs load_nibbles(const uint8_t* from, int64_t /*part*/) {
  const auto bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const auto twice = _mm512_cvtepu8_epi16(_mm256_broadcastsi128_si256(bytes));
  const auto shifts = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
  return bits<Pairs>(_mm512_srlv_epi16(twice, shifts)) & 15;
}

inline Pairs load_nibbles(const uint8_t* from, const int8_t (&table)[16], int64_t /*part*/) {
  const auto values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  const auto bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const auto mask = _mm_set1_epi8(15);
  const auto low = _mm_shuffle_epi8(values, _mm_and_si128(bytes, mask));
  const auto high = _mm_shuffle_epi8(values, _mm_and_si128(_mm_srli_epi16(bytes, 4), mask));
  return bits<Pairs>(_mm512_cvtepi8_epi16(_mm256_set_m128i(high, low)));
}

inline Pairs spread_bits(uint32_t from, int64_t /*part*/) {
  return bits<Pairs>(_mm512_movm_epi16(from));
}

inline Pairs splat_two(const int32_t* pairs, int64_t /*part*/) {
  const auto first = _mm512_set1_epi32(pairs[0]);
  return bits<Pairs>(_mm512_mask_set1_epi32(first, 0xff00, pairs[1]));
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
  return bits<Ints>(_mm512_dpwssd_epi32(bits<__m512i>(sum), bits<__m512i>(a), bits<__m512i>(b)));
}

inline Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }

// The second where one of them is NaN.
inline Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }

inline Floats sqrt(Floats v) { return _mm512_sqrt_ps(v); }

inline float sum(Floats v) {
  const auto wide = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  auto half = _mm_add_ps(_mm256_castps256_ps128(wide), _mm256_extractf128_ps(wide, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}

// Adds in the order of `sum`, several vectors at a time.
inline void sum_each(const Floats (&v)[8], float (&out)[8]) {
  // Quarters: of v[2 i] two sums, then of v[2 i + 1].
  __m512 pairs[4], quads[2];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    pairs[i] = _mm512_add_ps(_mm512_mask_blend_ps(0xff00, v[2 * i], v[2 * i + 1]),
                             _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x4e));
  }
  // A quarter of each of v[4 i] to v[4 i + 3].
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    quads[i] = _mm512_add_ps(_mm512_shuffle_f32x4(pairs[2 * i], pairs[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(pairs[2 * i], pairs[2 * i + 1], 0xdd));
  }
  // In quarter i two sums of v[i], then of v[4 + i].
  const auto halves = _mm512_add_ps(_mm512_shuffle_ps(quads[0], quads[1], 0x44),
                                    _mm512_shuffle_ps(quads[0], quads[1], 0xee));
  const auto sums = _mm512_add_ps(halves, _mm512_permute_ps(halves, 0xb1));
  const auto order = _mm512_castsi256_si512(_mm256_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14));
  _mm256_storeu_ps(out, _mm512_castps512_ps256(_mm512_permutexvar_ps(order, sums)));
}

inline void transpose(Floats (&v)[16]) {
  Floats t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
  }
  // Quarters of four numbers: u[i + j] holds the columns j, j + 4, j + 8, j + 12 of four rows.
  Floats u[16];
  for (int i = 0; i < 16; i += 4) {
    u[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int j = 0; j < 4; ++j) {
    const auto even_low = _mm512_shuffle_f32x4(u[j], u[j + 4], 0x88);
    const auto odd_low = _mm512_shuffle_f32x4(u[j], u[j + 4], 0xdd);
    const auto even_high = _mm512_shuffle_f32x4(u[j + 8], u[j + 12], 0x88);
    const auto odd_high = _mm512_shuffle_f32x4(u[j + 8], u[j + 12], 0xdd);
    v[j] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
    v[j + 4] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
    v[j + 8] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
    v[j + 12] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
  }
}

inline Floats spread(const Float16* from) {
  int64_t numbers;
  std::memcpy(&numbers, from, sizeof(numbers));
  const auto four = _mm512_cvtph_ps(_mm256_set1_epi64x(numbers));
  return _mm512_permutevar_ps(four,
                              _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0));
}

inline Ints add_nibble_products(const uint8_t* nibbles,
                                const int8_t* low,
                                const int8_t* high,
                                Ints sum) {
  const auto bytes = _mm512_loadu_si512(nibbles);
  const auto mask = _mm512_set1_epi8(15);
  const auto lows = _mm512_dpbusd_epi32(bits<__m512i>(sum), _mm512_and_si512(bytes, mask),
                                        _mm512_loadu_si512(low));
  const auto highs = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask);
  return bits<Ints>(_mm512_dpbusd_epi32(lows, highs, _mm512_loadu_si512(high)));
}

}  // namespace
}  // namespace gemma::cpu
