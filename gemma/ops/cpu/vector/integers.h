#pragma once

#include <gemma/ops/cpu/vector/simd.h>

// Floats as integers and a scale.
namespace gemma::cpu {
namespace {

// NaN if there is a NaN or an infinity among them.
inline float largest_magnitude(const float* x, int64_t size) {
  auto peaks = zeros();
  auto nothing = zeros();
  const auto take = [&](Floats v) {
    peaks = max(peaks, max(v, -v));
    nothing += v * 0.0F;
  };
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) take(load(x + i));
  if (i < size) take(load_part(x + i, size - i));
  return largest(peaks) + sum(nothing);
}

// x[i] ~ values[i] * scale, the largest of them +-limit -> scale, which tells of NaN.
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
