#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/weight_matrix.h>

namespace gemma {

/// model.py: Embedding. Rows of a table of floats, or of int8 with one scale a row.
class EmbeddingImpl : public WeightMatrix {
 public:
  /// Throws std::invalid_argument for a negative size.
  EmbeddingImpl(int64_t num_embeddings, int64_t embedding_dim, bool quant);

  /// [...] int64 -> [..., embedding_dim].
  torch::Tensor forward(const torch::Tensor& x);

  /// forward(x) times the root of embedding_dim: what the reference's models begin with.
  torch::Tensor scaled(const torch::Tensor& x);

  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override;
};
TORCH_MODULE(Embedding);

}  // namespace gemma
