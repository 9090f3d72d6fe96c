#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <gemma/ops/ops.h>
#include <gemma/vision/siglip_layers.h>

namespace gemma {

LayerNormImpl::LayerNormImpl(int64_t dim, double eps) : eps_(eps) {
  check_size("LayerNorm", "dim", dim);
  weight = register_parameter("weight", at::ones({dim}, default_dtype()), /*requires_grad=*/false);
  bias = register_parameter("bias", at::zeros({dim}, default_dtype()), /*requires_grad=*/false);
}

torch::Tensor LayerNormImpl::forward(const torch::Tensor& x) {
  return tapped("hook_out", ops().layer_norm(tapped_copy("hook_in", x), {weight, bias, eps_}));
}

std::string LayerNormImpl::signature() const {
  return fmt::format("LayerNorm(({},), eps={})", weight.size(0), eps_);
}

PatchEmbeddingImpl::PatchEmbeddingImpl(int64_t in_channels,
                                       int64_t out_channels,
                                       int64_t patch_size,
                                       bool use_bias) {
  check_size("PatchEmbedding", "in_channels", in_channels);
  check_size("PatchEmbedding", "out_channels", out_channels);
  check_size("PatchEmbedding", "patch_size", patch_size);
  weight = register_parameter(
      "weight", uninitialized({out_channels, in_channels, patch_size, patch_size}, default_dtype()),
      /*requires_grad=*/false);
  if (!use_bias) return;
  bias = register_parameter("bias", uninitialized({out_channels}, default_dtype()),
                            /*requires_grad=*/false);
}

torch::Tensor PatchEmbeddingImpl::forward(const torch::Tensor& pixels) {
  return tapped("hook_out", ops().embed_patches(tapped_copy("hook_in", pixels), weight, bias));
}

std::string PatchEmbeddingImpl::signature() const {
  const auto side = weight.size(2);
  return fmt::format("Conv2d({}, {}, kernel_size=({}, {}), stride=({}, {}){})", weight.size(1),
                     weight.size(0), side, side, side, side, bias.defined() ? "" : ", bias=False");
}

}  // namespace gemma
