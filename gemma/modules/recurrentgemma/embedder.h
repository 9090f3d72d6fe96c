#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/module.h>

namespace gemma::recurrentgemma {

/// recurrentgemma/torch/modules.py: Embedder.
class EmbedderImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size.
  EmbedderImpl(int64_t vocab_size, int64_t embed_dim, bool scale_by_sqrt_dim);

  /// Token ids [B, T], int32 or int64 -> [B, T, embed_dim]; scaled by the root of embed_dim, which
  /// is rounded to bfloat16 whatever the model's dtype.
  torch::Tensor encode(const torch::Tensor& x);

  /// [B, T, embed_dim] -> logits [B, T, vocab_size].
  torch::Tensor decode(const torch::Tensor& x);

  int64_t vocab_size() const { return input_embedding.size(0); }
  int64_t embed_dim() const { return input_embedding.size(1); }
  bool scale_by_sqrt_dim() const { return scale_by_sqrt_dim_; }
  std::vector<TapPoint> tap_points() const override { return {{"hook_in"}, {"hook_out"}}; }
  std::string signature() const override { return "Embedder()"; }

  torch::Tensor input_embedding;  // [vocab_size, embed_dim]

 private:
  bool scale_by_sqrt_dim_;
};
TORCH_MODULE(Embedder);

}  // namespace gemma::recurrentgemma
