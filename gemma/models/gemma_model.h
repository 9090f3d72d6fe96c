#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>

#include <gemma/config/config.h>
#include <gemma/models/lens_names.h>
#include <gemma/models/rope_tables.h>
#include <gemma/modules/decoder_layer.h>
#include <gemma/modules/module.h>
#include <gemma/modules/rms_norm.h>

namespace gemma {

/// Some of a model's layers.
struct LayerRange {
  int64_t first = 0;
  /// The one before which to end, without the final norm; none: after that norm.
  std::optional<int64_t> end = std::nullopt;
};

/// model.py: GemmaModel. The stack of layers and the final norm.
class GemmaModelImpl : public Module {
 public:
  /// Throws std::invalid_argument for a config that validate() refuses.
  explicit GemmaModelImpl(const GemmaConfig& config);

  /// hidden_states [B, L, E], kv_caches one a layer, the rest as GemmaAttention takes it
  /// -> [B, L, E]. on_layer is called after each layer. Of the layers only those of `range`
  /// compute. Throws std::invalid_argument when a cache or a rotary table is missing, or the range
  /// is none.
  torch::Tensor forward(torch::Tensor hidden_states,
                        const FreqsCis& freqs_cis,
                        const torch::Tensor& kv_write_indices,
                        const std::vector<KVCache>& kv_caches,
                        const torch::Tensor& mask,
                        const std::optional<torch::Tensor>& local_mask,
                        const LayerCallback& on_layer = {},
                        const LayerRange& range = {});

  /// What forward does for a step of an engine: hidden_states [T, E], freqs_cis complex64
  /// [T, D / 2] -> [T, E].
  torch::Tensor forward_step(torch::Tensor hidden_states,
                             const FreqsCis& freqs_cis,
                             const Step& step,
                             const LayerCallback& on_layer = {});

  const GemmaConfig& config() const { return config_; }
  int64_t vocab_size() const { return config_.vocab_size; }
  const LensNames& lens_names() const { return lens_names_; }
  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override { return "GemmaModel()"; }

  torch::nn::ModuleList layers;  // Of DecoderLayerImpl.
  RMSNorm norm{nullptr};

 private:
  // Calls each layer with what `inputs_of` makes of the layer's number and rotary table.
  template <typename InputsOf>
  torch::Tensor run_layers(torch::Tensor hidden_states,
                           const FreqsCis& freqs_cis,
                           size_t num_caches,
                           const LayerCallback& on_layer,
                           const LayerRange& range,
                           const InputsOf& inputs_of);
  std::vector<std::string> other_names(const std::string& path) const override;

  GemmaConfig config_;
  LensNames lens_names_;
};
TORCH_MODULE(GemmaModel);

}  // namespace gemma
