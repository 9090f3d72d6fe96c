#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include <gemma/ops/cpu/kernels.h>

// Vectors of the widest registers that the including file is compiled for. Kernels are written once
// against these functions and compiled once for each instruction set.
//
// Everything is in an unnamed namespace, here and in the kernels: a function that the linker could
// share between two such files would be run on machines that it was not compiled for. For the same
// reason these files include nothing but the plainest headers.
namespace gemma::cpu {
namespace {

#ifdef __AVX2__
constexpr int64_t kLanes = 8;
#else
constexpr int64_t kLanes = 4;
#endif

using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using Ints = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));
using Words = uint32_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));
using Shorts = uint16_t __attribute__((vector_size(kLanes * sizeof(uint16_t))));
using Pairs = int16_t __attribute__((vector_size(kLanes * 2 * sizeof(int16_t))));

template <typename To, typename From>
To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

#ifndef __AVX2__
// IEEE half precision, without help from the processor.
inline float to_float(Float16 half) {
  // By way of a float32 with the half's exponent and fraction, 2^112 times too small.
  const uint32_t magnitude = static_cast<uint32_t>(half.bits & 0x7fff) << 13;
  float value;
  std::memcpy(&value, &magnitude, sizeof(value));
  value *= 0x1p112F;
  uint32_t result;
  std::memcpy(&result, &value, sizeof(result));
  if (magnitude >= 0x0f800000) result |= 0x7f800000;  // Infinity and NaN.
  result |= static_cast<uint32_t>(half.bits & 0x8000) << 16;
  std::memcpy(&value, &result, sizeof(value));
  return value;
}
#endif

inline Floats splat(float value) {
#ifdef __AVX2__
  return _mm256_set1_ps(value);
#else
  return Floats{value, value, value, value};
#endif
}

inline Floats zeros() { return Floats{}; }

inline Floats load(const float* from) {
  Floats to;
  std::memcpy(&to, from, sizeof(to));
  return to;
}

// A bfloat16 number is the upper half of a float32 number.
inline Floats load(const BFloat16* from) {
#ifdef __AVX2__
  // As below, which GCC 12 does in two halves.
  const auto half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
#else
  Shorts half;
  std::memcpy(&half, from, sizeof(half));
  return bits<Floats>(__builtin_convertvector(half, Ints) << 16);
#endif
}

inline Floats load(const Float16* from) {
#ifdef __AVX2__
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  Floats to;
  for (int64_t i = 0; i < kLanes; ++i) to[i] = to_float(from[i]);
  return to;
#endif
}

inline Floats load(const int8_t* from) {
#ifdef __AVX2__
  const auto bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
#else
  Floats to;
  for (int64_t i = 0; i < kLanes; ++i) to[i] = from[i];
  return to;
#endif
}

// Half of the 2 * kLanes columns from `from` on, in the order in which multiply_few takes x.
template <int kHalf, typename T>
Floats load_half(const T* from) {
  return load(from + kHalf * kLanes);
}

// As split_pairs leaves x, even columns and odd ones: a shift or a mask takes a pair apart, which
// is cheaper than widening.
template <int kHalf>
Floats load_half(const BFloat16* from) {
  Words pairs;
  std::memcpy(&pairs, from, sizeof(pairs));
  return bits<Floats>(kHalf == 0 ? pairs << 16 : pairs & 0xffff0000U);
}

inline Ints load_bytes(const uint8_t* from) {
#ifdef __AVX2__
  const auto bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return bits<Ints>(_mm256_cvtepu8_epi32(bytes));
#else
  return Ints{from[0], from[1], from[2], from[3]};
#endif
}

inline Floats to_floats(Ints from) { return __builtin_convertvector(from, Floats); }

// Rounds to nearest, ties to even; numbers below 2^22.
inline Ints to_ints(Floats from) {
  // In 1.5 * 2^23 + x the integer stands in the lowest bits.
  constexpr float kShift = 12582912.0F;
  return bits<Ints>(from + kShift) - bits<Ints>(splat(kShift));
}

inline Pairs load_pairs(const int16_t* from) {
  Pairs to;
  std::memcpy(&to, from, sizeof(to));
  return to;
}

inline Pairs load_pairs(const int8_t* from) {
#ifdef __AVX2__
  return bits<Pairs>(_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
  Pairs to;
  for (int64_t i = 0; i < 2 * kLanes; ++i) to[i] = from[i];
  return to;
#endif
}

// The same pair in all lanes.
inline Pairs splat_pair(const int16_t* from) {
  int32_t pair;
  std::memcpy(&pair, from, sizeof(pair));
  return bits<Pairs>(Ints{} + pair);
}

// sum[i] + a[2 i] * b[2 i] + a[2 i + 1] * b[2 i + 1]
inline Ints add_products(Pairs a, Pairs b, Ints sum) {
#ifdef __AVX2__
  return sum + bits<Ints>(_mm256_madd_epi16(bits<__m256i>(a), bits<__m256i>(b)));
#else
  for (int64_t i = 0; i < kLanes; ++i) sum[i] += a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
  return sum;
#endif
}

inline void store(float* to, Floats from) { std::memcpy(to, &from, sizeof(from)); }

// Rounds to nearest, ties to even. NaN stays NaN only by luck of its bits; caches hold none.
inline void store(BFloat16* to, Floats from) {
  const auto wide = bits<Ints>(from);
  const auto rounded = wide + 0x7fff + ((wide >> 16) & 1);
  const auto half = __builtin_convertvector((rounded >> 16) & 0xffff, Shorts);
  std::memcpy(to, &half, sizeof(half));
}

inline void store(int16_t* to, Ints from) {
  const auto half = __builtin_convertvector(from, Shorts);
  std::memcpy(to, &half, sizeof(half));
}

inline void store(int8_t* to, Ints from) {
  using Bytes = int8_t __attribute__((vector_size(kLanes)));
  const auto quarter = __builtin_convertvector(from, Bytes);
  std::memcpy(to, &quarter, sizeof(quarter));
}

// The first `count` elements, zeros after them.
template <typename T>
Floats load_part(const T* from, int64_t count) {
  T padded[kLanes] = {};
  std::memcpy(padded, from, count * sizeof(T));
  return load(padded);
}

template <typename T>
void store_part(T* to, Floats from, int64_t count) {
  T whole[kLanes];
  store(whole, from);
  std::memcpy(to, whole, count * sizeof(T));
}

// a * b + c
inline Floats fma(Floats a, Floats b, Floats c) {
#ifdef __FMA__
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

inline Floats max(Floats a, Floats b) { return a > b ? a : b; }
inline Floats min(Floats a, Floats b) { return a < b ? a : b; }

inline float sum(Floats v) {
#ifdef __AVX2__
  auto half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
#else
  return (v[0] + v[2]) + (v[1] + v[3]);
#endif
}

inline float largest(Floats v) {
  float result = v[0];
  for (int64_t i = 1; i < kLanes; ++i) result = v[i] > result ? v[i] : result;
  return result;
}

// e^x to 2 units in the last place; 0 below the smallest normal number, no infinity.
// Cephes' expf: x = n ln 2 + r, e^r by a polynomial, 2^n by the exponent's bits.
inline Floats exp(Floats x) {
  constexpr float kLowest = -87.33654F;
  constexpr float kHighest = 88.37626F;
  const auto clamped = min(max(x, splat(kLowest)), splat(kHighest));
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the lowest bits.
  const auto shifted = fma(clamped, splat(1.44269504F), splat(12582912.0F));
  const auto n = shifted - 12582912.0F;
  auto r = fma(n, splat(-0.693359375F), clamped);
  r = fma(n, splat(2.12194440e-4F), r);
  auto p = splat(1.9875691500e-4F);
  p = fma(p, r, splat(1.3981999507e-3F));
  p = fma(p, r, splat(8.3334519073e-3F));
  p = fma(p, r, splat(4.1665795894e-2F));
  p = fma(p, r, splat(1.6666665459e-1F));
  p = fma(p, r, splat(5.0000001201e-1F));
  p = fma(p, r * r, r + 1.0F);
  const auto scale = bits<Floats>((bits<Ints>(shifted) << 23) + bits<Ints>(splat(1.0F)));
  return x < kLowest ? zeros() : p * scale;
}

// To 2e-7 of the full range: near 0 the error is absolute.
inline Floats tanh(Floats x) { return 1.0F - 2.0F / (exp(x * 2.0F) + 1.0F); }

// x * 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))), as 0.5 * (1 + tanh z) = 1 / (1 + e^-2z).
inline Floats gelu_tanh(Floats x) {
  constexpr float kMinusTwoRootTwoOverPi = -1.5957691216F;
  const auto cubic = fma(x * x * x, splat(0.044715F), x);
  return x / (1.0F + exp(cubic * kMinusTwoRootTwoOverPi));
}

// Calls `use` with the data of a matrix of floats as what it is.
template <typename Use>
void visit_floats(const Matrix& matrix, const Use& use) {
  switch (matrix.type) {
    case WeightType::kFloat32:
      return use(static_cast<const float*>(matrix.data));
    case WeightType::kBFloat16:
      return use(static_cast<const BFloat16*>(matrix.data));
    case WeightType::kFloat16:
      return use(static_cast<const Float16*>(matrix.data));
    default:
      return;  // Has kernels of its own.
  }
}

// The scale of a row of int8.
inline float row_scale(const Matrix& w, int64_t row) {
  switch (w.scale_type) {
    case WeightType::kBFloat16: {
      const auto half = static_cast<const BFloat16*>(w.scales)[row];
      return bits<float>(static_cast<uint32_t>(half.bits) << 16);
    }
    case WeightType::kFloat16:
      return load_part(static_cast<const Float16*>(w.scales) + row, 1)[0];
    default:
      return static_cast<const float*>(w.scales)[row];
  }
}

inline void prefetch(const void* address) { __builtin_prefetch(address); }
inline void prefetch_to_write(void* address) { __builtin_prefetch(address, /*rw=*/1); }

}  // namespace
}  // namespace gemma::cpu
