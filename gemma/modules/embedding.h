#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/module.h>
#include <gemma/ops/weight_view.h>

namespace gemma {

/// model.py: Embedding. Rows of a table of floats, or of int8 with one scale a row.
class EmbeddingImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size.
  EmbeddingImpl(int64_t num_embeddings, int64_t embedding_dim, bool quant);

  /// [...] int64 -> [..., embedding_dim].
  torch::Tensor forward(const torch::Tensor& x);

  /// forward(x) times the root of embedding_dim: what the reference's models begin with.
  torch::Tensor scaled(const torch::Tensor& x);

  /// The table in the form that operations take.
  WeightView view() const { return {weight, weight_scaler}; }

  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override;

  torch::Tensor weight;         // [num_embeddings, embedding_dim], default dtype or int8
  torch::Tensor weight_scaler;  // [num_embeddings]; undefined unless quant
};
TORCH_MODULE(Embedding);

}  // namespace gemma
