#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/module.h>

namespace gemma::recurrentgemma {

/// recurrentgemma/torch/layers.py: Conv1D. Each feature by itself, over the last temporal_width
/// tokens of its document.
class Conv1DImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size, and for a temporal_width below 1.
  Conv1DImpl(int64_t width, int64_t temporal_width);

  /// x [B, T, width], segment_pos [B, T], 0 where a document begins, cache [B, temporal_width - 1,
  /// width] or none; with one, T is 1 -> ([B, T, width], the next cache, none unless return_cache).
  /// Without a cache, x itself is changed: a token that another document follows within
  /// temporal_width - 1 becomes 0, as in the reference. Throws c10::ValueError for other shapes.
  std::pair<torch::Tensor, std::optional<torch::Tensor>> forward(
      const torch::Tensor& x,
      const torch::Tensor& segment_pos,
      const std::optional<torch::Tensor>& cache = std::nullopt,
      bool return_cache = true);

  /// The same, and always the next cache; with one, of any number of tokens. Shapes are right.
  std::pair<torch::Tensor, torch::Tensor> convolve(const torch::Tensor& x,
                                                   const torch::Tensor& segment_pos,
                                                   const std::optional<torch::Tensor>& cache) const;

  /// Zeros, [batch_size, conv1d_temporal_width - 1, width].
  static torch::Tensor init_cache(int64_t batch_size,
                                  int64_t width,
                                  torch::Dtype dtype,
                                  int64_t conv1d_temporal_width = 4,
                                  torch::Device device = torch::kCPU);

  int64_t width() const { return w.size(1); }
  int64_t temporal_width() const { return w.size(0); }
  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override { return "Conv1D()"; }

  torch::Tensor w;  // [temporal_width, width], the token's own last
  torch::Tensor b;  // [width]
};
TORCH_MODULE(Conv1D);

}  // namespace gemma::recurrentgemma
