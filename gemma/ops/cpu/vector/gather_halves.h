#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <immintrin.h>

namespace gemma::cpu {
namespace {

// As `gather` of vectors.h, for the processors that have its instructions.
template <int64_t kStride>
inline __attribute__((always_inline)) __m256 gather_halves(const std::byte* from, int64_t count) {
  const auto half = [from](int64_t i) __attribute__((always_inline)) {
    uint16_t bits;
    std::memcpy(&bits, from + i * kStride, sizeof(bits));
    return static_cast<int>(bits);
  };
  if (count < 8) {
    alignas(16) uint16_t halves[8] = {};
    for (int64_t i = 0; i < count; ++i) halves[i] = static_cast<uint16_t>(half(i));
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(halves)));
  }
  auto all = _mm_cvtsi32_si128(half(0));
  all = _mm_insert_epi16(all, half(1), 1);
  all = _mm_insert_epi16(all, half(2), 2);
  all = _mm_insert_epi16(all, half(3), 3);
  all = _mm_insert_epi16(all, half(4), 4);
  all = _mm_insert_epi16(all, half(5), 5);
  all = _mm_insert_epi16(all, half(6), 6);
  return _mm256_cvtph_ps(_mm_insert_epi16(all, half(7), 7));
}

}  // namespace
}  // namespace gemma::cpu
