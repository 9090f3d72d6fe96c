#pragma once

#include <gemma/ops/cpu/vector/simd.h>

// The limits of the machine, to compare measurements with.
namespace gemma::cpu {
namespace {

constexpr int kCacheLine = 64;

// Several streams keep more reads under way than one. Of 1 to 16 of them, and of asking 0 to 2 KB
// ahead, this was the fastest: processors follow four streams without help.
constexpr int kProbeStreams = 4;

uint32_t read_memory(const void* data, int64_t size) {
  constexpr auto kVectors = kCacheLine / static_cast<int>(sizeof(Words));
  const auto* const begin = static_cast<const char*>(data);
  const auto stretch = size / (kProbeStreams * kCacheLine) * kCacheLine;
  Words sums[kVectors] = {};
  for (int64_t i = 0; i < stretch; i += kCacheLine) {
#pragma GCC unroll 4
    for (int s = 0; s < kProbeStreams; ++s) {
      const auto* const line = begin + s * stretch + i;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        Words words;
        std::memcpy(&words, line + v * sizeof(Words), sizeof(Words));
        sums[v] += words;
      }
    }
  }
  uint32_t total = 0;
  for (const auto& sum : sums) {
    for (int64_t i = 0; i < kLanes; ++i) total += sum[i];
  }
  return total;
}

// As many sums as hide the latency of an addition, and fit into 16 registers with the factors.
constexpr int kProbeSums = 12;

float multiply_registers(int64_t rounds, float factor, float addend) {
  const auto x = splat(factor);
  const auto y = splat(addend);
  Floats sums[kProbeSums];
  for (int i = 0; i < kProbeSums; ++i) sums[i] = splat(static_cast<float>(i));
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kProbeSums; ++i) sums[i] = fma(sums[i], x, y);
  }
  auto total = zeros();
  for (const auto& part : sums) total += part;
  return sum(total);
}

}  // namespace
}  // namespace gemma::cpu
