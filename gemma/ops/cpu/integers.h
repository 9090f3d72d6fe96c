#pragma once

#include <gemma/ops/cpu/simd.h>

// Floats as integers and a scale.
namespace gemma::cpu {
namespace {

inline float largest_magnitude(const float* x, int64_t size) {
  auto peaks = zeros();
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) peaks = max(peaks, max(load(x + i), -load(x + i)));
  if (i < size) {
    const auto rest = load_part(x + i, size - i);
    peaks = max(peaks, max(rest, -rest));
  }
  return largest(peaks);
}

// x[i] ~ values[i] * scale, the largest of them +-limit -> scale.
template <typename T>
float to_integers(const float* x, int64_t size, float limit, T* values) {
  const auto peak = largest_magnitude(x, size);
  const auto inverse = splat(peak == 0.0F ? 0.0F : limit / peak);
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) store(values + i, to_ints(load(x + i) * inverse));
  if (i < size) {
    T whole[kLanes];
    store(whole, to_ints(load_part(x + i, size - i) * inverse));
    std::memcpy(values + i, whole, (size - i) * sizeof(T));
  }
  return peak / limit;
}

}  // namespace
}  // namespace gemma::cpu
