#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/config/config.h>
#include <gemma/modules/module.h>
#include <gemma/ops/weight_view.h>

namespace gemma {

/// model.py: Sampler. Logits of one position against the embedding, soft cap, temperature, top-p,
/// then top-k, then one draw a row from LibTorch's default generator.
class SamplerImpl : public Module {
 public:
  SamplerImpl(int64_t vocab_size, const GemmaConfig& config);

  /// embedding [V, E], hidden_states [B, L, E], output_positions int64 [1] or 0-dim (an index into
  /// L), temperatures [B] float or none for the likeliest token, top_ps [B] float, top_ks [B]
  /// int64, embedding_bias [V] -> (tokens [B] int64, logits [B, V]).
  /// The logits are soft-capped and divided by the temperature; the likeliest token of a single row
  /// comes as a 0-dim tensor. Both are the reference's.
  std::pair<torch::Tensor, torch::Tensor> forward(
      const WeightView& embedding,
      const torch::Tensor& hidden_states,
      const torch::Tensor& output_positions,
      const std::optional<torch::Tensor>& temperatures,
      const torch::Tensor& top_ps,
      const torch::Tensor& top_ks,
      const std::optional<torch::Tensor>& embedding_bias = std::nullopt);

  int64_t vocab_size() const { return vocab_size_; }
  const GemmaConfig& config() const { return config_; }
  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override { return "Sampler()"; }

 private:
  int64_t vocab_size_;
  GemmaConfig config_;
};
TORCH_MODULE(Sampler);

}  // namespace gemma
