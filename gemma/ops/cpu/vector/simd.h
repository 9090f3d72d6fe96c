#pragma once

#if defined(__AVX512F__)
#include <gemma/ops/cpu/vector/simd_avx512.h>
#elif defined(__AVX2__)
#include <gemma/ops/cpu/vector/simd_avx2.h>
#else
#include <gemma/ops/cpu/vector/simd_portable.h>
#endif

// Kernels are written once against the functions here and in vectors.h, and compiled once for each
// instruction set.
namespace gemma::cpu {
namespace {

// Half of the 2 * kLanes columns from `from` on, in the order in which gemv takes x.
template <int kHalf, typename T>
Floats load_half(const T* from) {
  return load(from + kHalf * kLanes);
}

// As pack_gemv_floats leaves x, even columns and odd ones: a shift or a mask takes a pair apart,
// which is cheaper than widening.
template <int kHalf>
Floats load_half(const BFloat16* from) {
  Words pairs;
  std::memcpy(&pairs, from, sizeof(pairs));
  return bits<Floats>(kHalf == 0 ? pairs << 16 : pairs & 0xffff0000U);
}

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

// The same pair in all lanes.
inline Pairs splat_pair(const int16_t* from) {
  int32_t pair;
  std::memcpy(&pair, from, sizeof(pair));
  return bits<Pairs>(Ints{} + pair);
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
// NaN stays NaN, of which exp makes a number.
inline Floats tanh(Floats x) { return x == x ? 1.0F - 2.0F / (exp(x * 2.0F) + 1.0F) : x; }

// x * 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))), as 0.5 * (1 + tanh z) = 1 / (1 + e^-2z).
inline Floats gelu_tanh(Floats x) {
  constexpr float kMinusTwoRootTwoOverPi = -1.5957691216F;
  const auto cubic = fma(x * x * x, splat(0.044715F), x);
  return x / (1.0F + exp(cubic * kMinusTwoRootTwoOverPi));
}

// Calls `use` with the data of a matrix of floats, as a pointer to its type.
template <typename Use>
void visit_floats(const WeightView& matrix, const Use& use) {
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
inline float row_scale(const WeightView& w, int64_t row) {
  switch (w.scale_type) {
    case WeightType::kBFloat16: {
      const auto half = static_cast<const BFloat16*>(w.scales)[row];
      return bits<float>(static_cast<uint32_t>(half.bits) << 16);
    }
    case WeightType::kFloat16:
      return to_float(static_cast<const Float16*>(w.scales)[row]);
    default:
      return static_cast<const float*>(w.scales)[row];
  }
}

inline void prefetch(const void* address) { __builtin_prefetch(address); }

// Of weights, kFloatPrefetch or kIntegerPrefetch bytes ahead. Where that is far, processors with
// AMX take them into the second cache: the first has fewer reads under way at once. A Zen 5 reads
// a tenth more into the first. Not as what is used but once (locality 0): that gave a Zen 5 another
// 4 %, but halved the rate of an Emerald Rapids.
inline void prefetch_weights(const void* address) {
#if defined(__AMX_TILE__)
  __builtin_prefetch(address, /*rw=*/0, /*locality=*/2);
#else
  __builtin_prefetch(address);
#endif
}

inline void prefetch_to_write(void* address) { __builtin_prefetch(address, /*rw=*/1); }

}  // namespace
}  // namespace gemma::cpu
