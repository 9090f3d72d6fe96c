#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/module.h>
#include <gemma/modules/recurrentgemma/stacked_weight.h>
#include <gemma/ops/weight_view.h>

namespace gemma::recurrentgemma {

/// recurrentgemma/torch/layers.py: BlockDiagonalLinear. A linear layer for each block of features.
class BlockDiagonalLinearImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size, and unless num_blocks divides width.
  BlockDiagonalLinearImpl(int64_t width, int64_t num_blocks);

  /// [..., width] -> [..., width].
  torch::Tensor forward(const torch::Tensor& x);

  /// The parameters in the form that operations take.
  BiasedWeight view() const { return {w, b}; }

  int64_t width() const { return num_blocks() * block_width(); }
  int64_t num_blocks() const { return w.size(0); }
  int64_t block_width() const { return w.size(1); }
  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override { return "BlockDiagonalLinear()"; }

  torch::Tensor w;  // [num_blocks, block_width, block_width]
  torch::Tensor b;  // [num_blocks, block_width]

 private:
  void arrange_own_weights() override { arrange_stacked(w, ops()); }
};
TORCH_MODULE(BlockDiagonalLinear);

}  // namespace gemma::recurrentgemma
