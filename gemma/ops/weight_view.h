#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include <ATen/core/Tensor.h>

#include <gemma/ops/block_layout.h>

// Weights as operations take them.
namespace gemma {

/// A matrix as checkpoints hold it: floats, int8 rows with one scale a row, 4 bits a number with
/// one scale for kGroup numbers, or the blocks of a GGUF.
struct WeightView {
  // Implicit: a plain tensor is a weight without scales.
  WeightView(at::Tensor matrix, at::Tensor scales_of_it = {})
      : data(std::move(matrix)), scales(std::move(scales_of_it)) {}
  WeightView(at::Tensor bytes, std::shared_ptr<const BlockLayout> layout)
      : data(std::move(bytes)), blocks(std::move(layout)) {}

  /// Numbers of a row that share a scale, in 4 bits.
  static constexpr int64_t kGroup = 32;

  bool quantized() const { return scales.defined(); }

  // [rows, columns], floating point or int8. In blocks uint8 [bytes]. In 4 bits uint8 [rows,
  // columns / 2]: a group's 16 bytes hold its first 16 numbers in their lower bits, the others in
  // their upper bits, each 8 too large.
  at::Tensor data;
  at::Tensor scales;  // [rows], or float16 [rows, columns / kGroup]; undefined unless quantised
  std::shared_ptr<const BlockLayout> blocks;  // Null unless in blocks.
};

/// RMSNorm's parameters: x / rms(x) * (1 + weight), or * weight without the unit offset.
struct NormWeight {
  at::Tensor weight;  // [normalised size]
  double eps;
  bool add_unit_offset;
  /// Computed in float32, or else in x's dtype, as RecurrentGemma does.
  bool in_float32 = true;
};

/// A linear layer's parameters where it has a bias, as in the vision model; other shapes are said
/// where they are taken.
struct BiasedWeight {
  at::Tensor weight;  // [out, in]
  at::Tensor bias;    // [out]
};

/// RG-LRU's parameters.
struct RgLruWeights {
  BiasedWeight input_gate;  // Of [H, E / H, E / H] and [H, E / H].
  BiasedWeight a_gate;      // Likewise.
  at::Tensor a_param;       // [E]
};

/// nn.LayerNorm's parameters: (x - mean) / sqrt(variance + eps) * weight + bias.
struct LayerNormWeight {
  at::Tensor weight;  // [normalised size]
  at::Tensor bias;    // Likewise.
  double eps;
};

}  // namespace gemma
