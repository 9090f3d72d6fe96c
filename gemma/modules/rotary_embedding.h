#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include <torch/nn/pimpl.h>

#include <gemma/modules/module.h>

namespace gemma {

/// modeling_gemma.py of Hugging Face transformers: GemmaRotaryEmbedding. The models here rotate by
/// the reference's complex tables; this is for code that was written against transformers.
// Differs from modeling_gemma.py: the constructor takes the numbers, as that of its first releases,
// and not a config.
class GemmaRotaryEmbeddingImpl : public Module {
 public:
  /// max_position_embeddings has no effect: there is no table. Throws std::invalid_argument for a
  /// dim that is not even or not above 0, a max_position_embeddings below 1, or a base that is not
  /// above 0.
  explicit GemmaRotaryEmbeddingImpl(int64_t dim,
                                    int64_t max_position_embeddings = 2048,
                                    double base = 10000.0);

  /// x says the dtype and the device alone; position_ids [B, T] of any integer dtype
  /// -> (cos, sin), [B, T, dim] each, computed in float32 and returned in x's dtype. The second
  /// half of dim repeats the first. Throws c10::ValueError for another shape of position_ids.
  std::pair<torch::Tensor, torch::Tensor> forward(const torch::Tensor& x,
                                                  const torch::Tensor& position_ids);

  int64_t dim() const { return 2 * inv_freq.size(0); }
  int64_t max_position_embeddings() const { return max_position_embeddings_; }
  double base() const { return base_; }
  std::string signature() const override { return "GemmaRotaryEmbedding()"; }

  torch::Tensor inv_freq;  // float32 [dim / 2]

 private:
  int64_t max_position_embeddings_;
  double base_;
};
TORCH_MODULE(GemmaRotaryEmbedding);

}  // namespace gemma
