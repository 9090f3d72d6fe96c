#include <stdexcept>

#include <fmt/format.h>

#include <gemma/models/engine_model.h>
#include <gemma/models/gemma_model.h>

namespace gemma {
namespace {

PassRows rows_of(const torch::Tensor& hidden_states, const torch::Tensor& positions) {
  return PassRows::of_batch(hidden_states.size(0), hidden_states.size(1),
                            positions[0].item<int64_t>());
}

}  // namespace

GemmaModelImpl::GemmaModelImpl(const GemmaConfig& config) : config_(config), lens_names_(config) {
  validate(config);
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    if (config.architecture == Architecture::kGemma1) {
      layers->push_back(GemmaDecoderLayer(config));
    } else {
      layers->push_back(Gemma2DecoderLayer(config, config.attn_type(i)));
    }
  }
  register_module("layers", layers);
  norm = register_module("norm", RMSNorm(config.hidden_size, config.rms_norm_eps));
}

template <typename InputsOf>
torch::Tensor GemmaModelImpl::run_layers(torch::Tensor hidden_states,
                                         const FreqsCis& freqs_cis,
                                         size_t num_caches,
                                         const LayerCallback& on_layer,
                                         const LayerRange& range,
                                         const InputsOf& inputs_of) {
  if (num_caches < layers->size()) {
    throw std::invalid_argument(fmt::format("GemmaModel: {} kv_caches for {} layers; give each one",
                                            num_caches, layers->size()));
  }
  const auto total = std::ssize(*layers);
  const auto end = range.end.value_or(total);
  if (range.first < 0 || range.first > end || end > total) {
    throw std::invalid_argument(
        fmt::format("GemmaModel: layers {} to {} are none of {} layers", range.first, end, total));
  }
  if (range.first == 0) hidden_states = tapped("hook_in", hidden_states);
  for (auto i = static_cast<size_t>(range.first); i < static_cast<size_t>(end); ++i) {
    auto& layer = layers->at<DecoderLayerImpl>(i);
    const auto freqs = freqs_cis.find(layer.attn_type());
    if (freqs == freqs_cis.end()) {
      throw std::invalid_argument(fmt::format(
          "GemmaModel: freqs_cis has no table for {} (layer {})", to_string(layer.attn_type()), i));
    }
    hidden_states = layer.forward_with(hidden_states, inputs_of(i, freqs->second));
    if (on_layer) on_layer(static_cast<int64_t>(i) + 1, total);
  }
  return range.end ? hidden_states : tapped("hook_out", norm(hidden_states));
}

std::vector<TapPoint> GemmaModelImpl::tap_points() const { return {{"hook_in"}, {"hook_out"}}; }

std::vector<std::string> GemmaModelImpl::other_names(const std::string& path) const {
  return lens_names_.of(path);
}

torch::Tensor GemmaModelImpl::forward(torch::Tensor hidden_states,
                                      const FreqsCis& freqs_cis,
                                      const torch::Tensor& kv_write_indices,
                                      const std::vector<KVCache>& kv_caches,
                                      const torch::Tensor& mask,
                                      const std::optional<torch::Tensor>& local_mask,
                                      const LayerCallback& on_layer,
                                      const LayerRange& range) {
  std::optional<TapPasses::Pass> pass;
  if (passes().are_watched()) pass.emplace(passes(), rows_of(hidden_states, kv_write_indices));
  return run_layers(std::move(hidden_states), freqs_cis, kv_caches.size(), on_layer, range,
                    [&](size_t i, const torch::Tensor& freqs) {
                      return DenseInputs{freqs, kv_write_indices, kv_caches[i], mask, local_mask};
                    });
}

torch::Tensor GemmaModelImpl::forward_step(torch::Tensor hidden_states,
                                           const FreqsCis& freqs_cis,
                                           const Step& step,
                                           const LayerCallback& on_layer) {
  std::optional<TapPasses::Pass> pass;
  if (passes().are_watched()) pass.emplace(passes(), rows_of(step));
  return run_layers(std::move(hidden_states), freqs_cis, step.layers.size(), on_layer, {},
                    [&](size_t i, const torch::Tensor& freqs) {
                      return StepInputs{freqs, step.pass, step.segments, step.layers[i]};
                    });
}

}  // namespace gemma
