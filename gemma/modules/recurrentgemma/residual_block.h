#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/config/griffin_config.h>
#include <gemma/modules/module.h>
#include <gemma/modules/recurrentgemma/cache.h>
#include <gemma/modules/recurrentgemma/local_attention_block.h>
#include <gemma/modules/recurrentgemma/mlp_block.h>
#include <gemma/modules/recurrentgemma/recurrent_block.h>
#include <gemma/modules/recurrentgemma/rms_norm.h>

namespace gemma::recurrentgemma {

/// recurrentgemma/torch/modules.py: ResidualBlock. One layer: recurrence or attention, then an MLP,
/// each behind a norm.
class ResidualBlockImpl : public Module {
 public:
  /// lru_width: width when absent. Throws std::invalid_argument for sizes that do not go together.
  ResidualBlockImpl(int64_t width,
                    int64_t mlp_expanded_width,
                    int64_t num_heads,
                    int64_t attention_window_size,
                    TemporalBlockType temporal_block_type,
                    std::optional<int64_t> lru_width = std::nullopt,
                    int64_t conv1d_temporal_width = 4);

  /// x [B, T, width], segment_pos [B, T], 0 where a document begins and -1 for padding on the left,
  /// cache: of this type of block; see RecurrentBlock and LocalAttentionBlock
  /// -> ([B, T, width], the next cache, none unless return_cache). Throws c10::ValueError for other
  /// shapes, and for the other block's cache.
  std::pair<torch::Tensor, std::optional<ResidualBlockCache>> forward(
      const torch::Tensor& x,
      const torch::Tensor& segment_pos,
      const std::optional<ResidualBlockCache>& cache = std::nullopt,
      bool return_cache = true);

  /// The same in an engine: x [T, width] -> [T, width]; the state is that of a step.
  torch::Tensor forward_step(const torch::Tensor& x, const StepInputs& inputs);

  /// What a sequence of an engine needs in this layer.
  LayerKeeps keeps() const;

  /// Zeros.
  static ResidualBlockCache init_cache(int64_t batch_size,
                                       int64_t width,
                                       int64_t num_heads,
                                       int64_t attention_window_size,
                                       TemporalBlockType temporal_block_type,
                                       torch::Dtype dtype,
                                       std::optional<int64_t> lru_width = std::nullopt,
                                       int64_t conv1d_temporal_width = 4,
                                       torch::Device device = torch::kCPU);

  TemporalBlockType temporal_block_type() const { return type_; }
  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override { return "ResidualBlock()"; }

  RMSNorm temporal_pre_norm{nullptr};
  RecurrentBlock recurrent_block{nullptr};       // Empty in an attention layer.
  LocalAttentionBlock attention_block{nullptr};  // Empty in a recurrent one.
  RMSNorm channel_pre_norm{nullptr};
  MLPBlock mlp_block{nullptr};

 private:
  std::pair<torch::Tensor, std::optional<ResidualBlockCache>> mix(
      const torch::Tensor& x,
      const torch::Tensor& segment_pos,
      const std::optional<ResidualBlockCache>& cache,
      bool return_cache);

  TemporalBlockType type_;
};
TORCH_MODULE(ResidualBlock);

}  // namespace gemma::recurrentgemma
