#include <algorithm>

#include <gemma/cli/bench/bench_work.h>

namespace gemma::cli {
namespace {

// Positions that the test's tokens see in all layers, summed over tokens and layers.
double positions_seen(const BenchCase& test, const GemmaConfig& config) {
  double seen = 0;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const bool local = config.architecture != Architecture::kGemma1 &&
                       config.attn_type(layer) == AttentionType::kLocalSliding &&
                       config.sliding_window_size.has_value();
    const auto most = local ? *config.sliding_window_size : config.max_position_embeddings;
    for (int64_t i = 0; i < test.tokens; ++i) {
      seen += static_cast<double>(std::min(test.depth + i + 1, most));
    }
  }
  return seen;
}

}  // namespace

double bytes_per_token(const BenchCase& test,
                       const LanguageModelImpl& model,
                       torch::Dtype kv_dtype) {
  const auto& config = model.config();
  double weights = 0;
  // Images have been encoded long before.
  for (const auto& part : {model.embedder->parameters(), model.model->parameters()}) {
    for (const auto& parameter : part) weights += static_cast<double>(parameter.nbytes());
  }
  const auto per_position = static_cast<double>(2 * config.num_key_value_heads * config.head_dim) *
                            static_cast<double>(c10::elementSize(kv_dtype));
  return weights / static_cast<double>(test.batch) +
         positions_seen(test, config) * per_position / static_cast<double>(test.tokens);
}

double flops_per_token(const BenchCase& test, const GemmaConfig& config) {
  const auto q = config.num_attention_heads * config.head_dim;
  const auto kv = config.num_key_value_heads * config.head_dim;
  const auto layer = config.hidden_size * (2 * q + 2 * kv + 3 * config.intermediate_size);
  const auto tokens = static_cast<double>(test.tokens);
  const auto linear = 2.0 * static_cast<double>(layer * config.num_hidden_layers);
  // Queries times keys, and weights times values.
  const auto attention = 4.0 * static_cast<double>(q) * positions_seen(test, config) / tokens;
  const auto logits = 2.0 * static_cast<double>(config.vocab_size * config.hidden_size);
  return linear + attention + (test.is_prefill() ? logits / tokens : logits);
}

}  // namespace gemma::cli
