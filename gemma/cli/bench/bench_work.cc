#include <algorithm>
#include <stdexcept>

#include <gemma/cli/bench/bench_work.h>
#include <gemma/models/griffin.h>
#include <gemma/models/language_model.h>

namespace gemma::cli {
namespace {

// Of all layers: weights that a token is multiplied by, and the numbers of all queries.
struct Layers {
  int64_t weights, queries;
};

Layers layers_of(const GemmaConfig& config) {
  const auto q = config.num_attention_heads * config.head_dim;
  const auto kv = config.num_key_value_heads * config.head_dim;
  const auto layer = config.hidden_size * (2 * q + 2 * kv + 3 * config.intermediate_size);
  return {layer * config.num_hidden_layers, q};
}

Layers layers_of(const recurrentgemma::GriffinConfig& config) {
  const auto width = config.width, inner = config.lru_width.value_or(width);
  int64_t weights = 0;
  for (const auto type : config.block_types) {
    weights += 3 * width * config.mlp_expanded_width;
    weights += type == recurrentgemma::TemporalBlockType::kAttention
                   ? 2 * width * (width + width / config.num_heads)
                   : 3 * width * inner + 2 * inner * inner / config.num_heads;
  }
  return {weights, width};
}

Layers layers_of(const EngineModelImpl& model) {
  if (const auto* gemma = dynamic_cast<const LanguageModelImpl*>(&model)) {
    return layers_of(gemma->config());
  }
  return layers_of(dynamic_cast<const recurrentgemma::GriffinImpl&>(model).config());
}

// Images have been encoded long before.
double bytes_of_weights(const EngineModelImpl& model) {
  const auto* gemma = dynamic_cast<const LanguageModelImpl*>(&model);
  auto weights = gemma != nullptr ? gemma->embedder->parameters() : model.parameters();
  if (gemma != nullptr) {
    const auto layers = gemma->model->parameters();
    weights.insert(weights.end(), layers.begin(), layers.end());
  }
  double bytes = 0;
  for (const auto& weight : weights) bytes += static_cast<double>(weight.nbytes());
  return bytes;
}

// Positions that a token of the test sees in the layer, averaged over its tokens.
double positions_seen(const BenchCase& test, const KeysKept& layer) {
  double seen = 0;
  for (int64_t i = 0; i < test.tokens; ++i) {
    const auto all = test.depth + i + 1;
    seen += static_cast<double>(std::min(all, layer.window.value_or(all)));
  }
  return seen / static_cast<double>(test.tokens);
}

}  // namespace

double bytes_per_token(const BenchCase& test, const EngineModelImpl& model, torch::Dtype kv_dtype) {
  auto bytes = bytes_of_weights(model) / static_cast<double>(test.batch);
  for (const auto& layer : model.kept_by_layers()) {
    if (const auto* keys = std::get_if<KeysKept>(&layer)) {
      const auto per_position = static_cast<double>(2 * keys->num_kv_heads * keys->head_dim) *
                                static_cast<double>(c10::elementSize(kv_dtype));
      bytes += positions_seen(test, *keys) * per_position;
    } else {
      const auto& state = std::get<StateKept>(layer);
      bytes += static_cast<double>((1 + state.conv_inputs) * state.width) * sizeof(float);
    }
  }
  return bytes;
}

double flops_per_token(const BenchCase& test, const EngineModelImpl& model) {
  const auto [weights, queries] = layers_of(model);
  auto flops = 2.0 * static_cast<double>(weights);
  for (const auto& layer : model.kept_by_layers()) {
    const auto* keys = std::get_if<KeysKept>(&layer);
    if (keys == nullptr) continue;
    // Queries times keys, and weights times values.
    flops += 4.0 * static_cast<double>(queries) * positions_seen(test, *keys);
  }
  const auto logits = 2.0 * static_cast<double>(model.vocab_size() * model.hidden_size());
  return flops + (test.is_prefill() ? logits / static_cast<double>(test.tokens) : logits);
}

int64_t mlp_width(const EngineModelImpl& model) {
  if (const auto* gemma = dynamic_cast<const LanguageModelImpl*>(&model)) {
    return gemma->config().intermediate_size;
  }
  return dynamic_cast<const recurrentgemma::GriffinImpl&>(model).config().mlp_expanded_width;
}

}  // namespace gemma::cli
