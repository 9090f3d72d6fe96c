#include <cmath>

#include <ATen/ops/scalar_tensor.h>

#include <gemma/modules/recurrentgemma/embedder.h>
#include <gemma/ops/ops.h>

namespace gemma::recurrentgemma {

EmbedderImpl::EmbedderImpl(int64_t vocab_size, int64_t embed_dim, bool scale_by_sqrt_dim)
    : scale_by_sqrt_dim_(scale_by_sqrt_dim) {
  check_size("Embedder", "vocab_size", vocab_size);
  check_size("Embedder", "embed_dim", embed_dim);
  input_embedding =
      register_parameter("input_embedding", uninitialized({vocab_size, embed_dim}, default_dtype()),
                         /*requires_grad=*/false);
}

torch::Tensor EmbedderImpl::encode(const torch::Tensor& x) {
  auto rows = ops().embedding(tapped_copy("hook_in", x), input_embedding);
  if (scale_by_sqrt_dim_) {
    const auto root = std::sqrt(static_cast<double>(embed_dim()));
    rows = rows * at::scalar_tensor(root, default_dtype()).to(at::kBFloat16);
  }
  return tapped("hook_out", rows);
}

torch::Tensor EmbedderImpl::decode(const torch::Tensor& x) {
  return ops().logits(x, input_embedding, /*buffer=*/{});
}

}  // namespace gemma::recurrentgemma
