#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Generator.h>

namespace gemma {

/// What at::empty({count}).exponential_() draws from a generator of LibTorch for the CPU, and
/// leaves behind in it; but a number costs its logarithm only when it is asked for. at::multinomial
/// makes one for each entry of a vocabulary, to need those of a few candidates.
class ExponentialDraws {
 public:
  /// Draws, and advances the generator, the default one unless another is given.
  explicit ExponentialDraws(int64_t count, at::Generator generator = {});

  /// The number at `index`, as float32.
  float at(int64_t index) const;

 private:
  // Of the generator's sequence, from the block of 624 that its state held: before tempering.
  std::unique_ptr<uint32_t[]> words_;
  int64_t first_ = 0;  // The index in words_ of the first word drawn.
  // All numbers, where LibTorch does not make them from the sequence as expected here.
  std::vector<float> drawn_;
};

}  // namespace gemma
