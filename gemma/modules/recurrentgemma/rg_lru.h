#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/module.h>
#include <gemma/modules/recurrentgemma/block_diagonal_linear.h>

namespace gemma::recurrentgemma {

/// recurrentgemma/torch/layers.py: RGLRU. The Real-Gated Linear Recurrent Unit.
class RGLRUImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size, and unless num_heads divides width.
  RGLRUImpl(int64_t width, int64_t num_heads);

  /// x [B, T, width], segment_pos [B, T], 0 where a document begins, cache float32 [B, width] or
  /// none -> ([B, T, width], the next cache, none unless return_cache). Throws c10::ValueError for
  /// a segment_pos of another shape.
  std::pair<torch::Tensor, std::optional<torch::Tensor>> forward(
      const torch::Tensor& x,
      const torch::Tensor& segment_pos,
      const std::optional<torch::Tensor>& cache = std::nullopt,
      bool return_cache = true);

  /// Whether a value between x and the result has a tap.
  bool are_gates_tapped() const;

  /// The parameters in the form that operations take.
  RgLruWeights view() const { return {input_gate->view(), a_gate->view(), a_param}; }

  /// The same, and always the next cache.
  std::pair<torch::Tensor, torch::Tensor> recur(const torch::Tensor& x,
                                                const torch::Tensor& segment_pos,
                                                const std::optional<torch::Tensor>& cache) const;

  /// Zeros, float32 [batch_size, width].
  static torch::Tensor init_cache(int64_t batch_size,
                                  int64_t width,
                                  torch::Device device = torch::kCPU);

  int64_t width() const { return a_param.size(0); }
  int64_t num_heads() const { return a_gate->num_blocks(); }
  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override { return "RGLRU()"; }

  torch::Tensor a_param;  // [width]
  BlockDiagonalLinear input_gate{nullptr};
  BlockDiagonalLinear a_gate{nullptr};

 private:
  std::pair<torch::Tensor, torch::Tensor> compute(const torch::Tensor& x,
                                                  const torch::Tensor& segment_pos,
                                                  const std::optional<torch::Tensor>& cache) const;
};
TORCH_MODULE(RGLRU);

}  // namespace gemma::recurrentgemma
