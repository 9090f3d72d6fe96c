#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>

#include <gemma/config/griffin_config.h>
#include <gemma/models/engine_model.h>
#include <gemma/modules/recurrentgemma/cache.h>
#include <gemma/modules/recurrentgemma/embedder.h>
#include <gemma/modules/recurrentgemma/residual_block.h>
#include <gemma/modules/recurrentgemma/rms_norm.h>
#include <gemma/weights/weights.h>

namespace gemma::recurrentgemma {

/// recurrentgemma/torch/griffin.py: Cache. One a block, in order; there by names "blocks.0", ….
using Cache = std::vector<ResidualBlockCache>;

/// recurrentgemma/torch/griffin.py: Griffin, the network of RecurrentGemma. Computes without
/// gradients: as the reference by forward(), and with either numerics on an engine.
// Differs from griffin.py: a new model's weights are not random numbers; norms are 0, and the
// others hold nothing until loaded.
class GriffinImpl : public EngineModelImpl {
 public:
  /// Weights take the default dtype. Throws std::invalid_argument for a config that validate()
  /// refuses.
  explicit GriffinImpl(const GriffinConfig& config);

  /// tokens [B, T], int32 or int64; segment_pos [B, T] of any integer dtype: a token's place in its
  /// document, 0 for the first and -1 for padding on the left; with a cache, T is 1
  /// -> (logits [B, T, V], none unless return_logits; the next cache, none unless return_cache).
  /// Writes into the tensors of a cache. on_block is called after each block.
  /// Throws c10::ValueError for other shapes, and for a cache that does not go with the config;
  /// std::logic_error with fast numerics, which an engine alone has.
  std::pair<std::optional<torch::Tensor>, std::optional<Cache>> forward(
      const torch::Tensor& tokens,
      const torch::Tensor& segment_pos,
      const std::optional<Cache>& cache = std::nullopt,
      bool return_logits = true,
      bool return_cache = true,
      const LayerCallback& on_block = {});

  /// Zeros, where the weights are. `dtype`: of all but the recurrence's states, which are float32.
  Cache init_cache(int64_t batch_size, torch::Dtype dtype) const;

  /// Loads what WeightSource::open takes; see gemma/weights/weights.h.
  LoadReport load_weights(const std::string& model_path, const LoadOptions& options = {});
  LoadReport load_weights(const WeightSource& source, const LoadOptions& options = {});

  // For an engine.
  torch::Tensor embed(const torch::Tensor& token_ids) override;
  torch::Tensor hidden_states(const torch::Tensor& embeddings,
                              const Step& step,
                              const LayerCallback& on_layer) override;
  torch::Tensor logits(const torch::Tensor& hidden_states, torch::Tensor buffer) const override;
  std::vector<LayerKeeps> kept_by_layers() const override;
  int64_t vocab_size() const override { return config_.vocab_size; }
  int64_t hidden_size() const override { return config_.width; }
  int64_t max_positions() const override;
  std::optional<double> logits_softcap() const override;
  torch::Device device() const override { return embedder->input_embedding.device(); }
  std::string config_bytes() const override;

  const GriffinConfig& config() const { return config_; }
  std::vector<TapPoint> tap_points() const override { return {{"hook_logits"}}; }
  std::string signature() const override { return "Griffin()"; }

  Embedder embedder{nullptr};
  torch::nn::ModuleList blocks;  // Of ResidualBlockImpl.
  RMSNorm final_norm{nullptr};

 private:
  GriffinConfig config_;
};
TORCH_MODULE(Griffin);

/// What one sequence's state takes, however long it is: of the recurrent blocks and of the
/// attention blocks, in bytes, as init_cache(1, dtype) makes them.
struct StateSize {
  int64_t recurrent = 0, attention = 0;
};
StateSize state_size(const GriffinConfig& config, torch::Dtype dtype);

}  // namespace gemma::recurrentgemma
