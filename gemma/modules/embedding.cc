#include <cmath>

#include <ATen/ops/scalar_tensor.h>
#include <fmt/format.h>

#include <gemma/modules/embedding.h>
#include <gemma/ops/ops.h>

namespace gemma {

EmbeddingImpl::EmbeddingImpl(int64_t num_embeddings, int64_t embedding_dim, bool quant)
    : WeightMatrix(check_size("Embedding", "num_embeddings", num_embeddings),
                   check_size("Embedding", "embedding_dim", embedding_dim),
                   quant) {}

torch::Tensor EmbeddingImpl::forward(const torch::Tensor& x) {
  if (!is_tapped()) return ops().embedding(x, view());
  return tapped("hook_out", ops().embedding(tapped("hook_in", x), view()));
}

std::vector<TapPoint> EmbeddingImpl::tap_points() const { return {{"hook_in"}, {"hook_out"}}; }

torch::Tensor EmbeddingImpl::scaled(const torch::Tensor& x) {
  const auto rows = forward(x);
  // Rounded to the activations' dtype: in bfloat16, sqrt(3072) is 55.5.
  return rows *
         at::scalar_tensor(std::pow(static_cast<double>(rows.size(-1)), 0.5), rows.options());
}

std::string EmbeddingImpl::signature() const {
  return fmt::format("Embedding({}, {}{})", rows(), columns(), quant_text());
}

}  // namespace gemma
