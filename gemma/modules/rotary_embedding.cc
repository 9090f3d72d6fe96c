#include <stdexcept>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <gemma/modules/rotary_embedding.h>
#include <gemma/ops/rotary.h>

namespace gemma {

GemmaRotaryEmbeddingImpl::GemmaRotaryEmbeddingImpl(int64_t dim,
                                                   int64_t max_position_embeddings,
                                                   double base)
    : max_position_embeddings_(max_position_embeddings), base_(base) {
  const auto refuse = [](std::string_view name, auto value, std::string_view expected) {
    throw std::invalid_argument(
        fmt::format("GemmaRotaryEmbedding: {} is {}, but must be {}", name, value, expected));
  };
  if (dim < 2 || dim % 2 != 0) refuse("dim", dim, "an even number above 0");
  if (max_position_embeddings < 1) {
    refuse("max_position_embeddings", max_position_embeddings, "at least 1");
  }
  if (!(base > 0)) refuse("base", base, "above 0");
  inv_freq = register_buffer("inv_freq", rope_frequencies(dim, base));
}

std::pair<torch::Tensor, torch::Tensor> GemmaRotaryEmbeddingImpl::forward(
    const torch::Tensor& x, const torch::Tensor& position_ids) {
  TORCH_CHECK_VALUE(position_ids.dim() == 2,
                    "GemmaRotaryEmbedding: position_ids must be [B, T], got ",
                    position_ids.sizes());
  return rope_cos_sin(position_ids, inv_freq.to(x.device()), x.scalar_type());
}

}  // namespace gemma
