#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/attention_inputs.h>
#include <gemma/modules/biased_linear.h>
#include <gemma/modules/module.h>
#include <gemma/modules/recurrentgemma/cache.h>
#include <gemma/modules/recurrentgemma/conv1d.h>
#include <gemma/modules/recurrentgemma/rg_lru.h>

namespace gemma::recurrentgemma {

/// recurrentgemma/torch/modules.py: RecurrentBlock.
class RecurrentBlockImpl : public Module {
 public:
  /// lru_width: width when absent. Throws std::invalid_argument for sizes that do not go together.
  RecurrentBlockImpl(int64_t width,
                     int64_t num_heads,
                     std::optional<int64_t> lru_width = std::nullopt,
                     int64_t conv1d_temporal_width = 4);

  /// x [B, T, width], segment_pos [B, T], 0 where a document begins and -1 for padding on the left;
  /// with a cache, T is 1 -> ([B, T, width], the next cache, none unless return_cache). Throws
  /// c10::ValueError for other shapes.
  std::pair<torch::Tensor, std::optional<RecurrentBlockCache>> forward(
      const torch::Tensor& x,
      const torch::Tensor& segment_pos,
      const std::optional<RecurrentBlockCache>& cache = std::nullopt,
      bool return_cache = true);

  /// The same in an engine: x [T, width] -> [T, width]; the state is that of a step.
  torch::Tensor forward_step(const torch::Tensor& x, const StepInputs& inputs);

  /// Zeros.
  static RecurrentBlockCache init_cache(int64_t batch_size,
                                        int64_t lru_width,
                                        torch::Dtype dtype,
                                        int64_t conv1d_temporal_width = 4,
                                        torch::Device device = torch::kCPU);

  int64_t width() const { return linear_out->weight.size(0); }
  int64_t num_heads() const { return rg_lru->num_heads(); }
  int64_t lru_width() const { return rg_lru->width(); }
  int64_t conv1d_temporal_width() const { return conv_1d->temporal_width(); }
  std::vector<TapPoint> tap_points() const override { return {{"hook_in"}, {"hook_out"}}; }
  std::string signature() const override { return "RecurrentBlock()"; }

  BiasedLinear linear_y{nullptr};
  BiasedLinear linear_x{nullptr};
  BiasedLinear linear_out{nullptr};
  Conv1D conv_1d{nullptr};
  RGLRU rg_lru{nullptr};

 private:
  torch::Tensor recur_step(const torch::Tensor& x, const StepInputs& inputs) const;
  torch::Tensor join(const torch::Tensor& y, const torch::Tensor& gate, Pass pass);
};
TORCH_MODULE(RecurrentBlock);

}  // namespace gemma::recurrentgemma
