// torch.ops.gemma.* for the keys of LibTorch's dispatcher that have no memory to compute on: shapes
// for torch.compile, and what it and autograd get in the place of a derivative, which there is
// none.
#include <optional>
#include <tuple>
#include <vector>

#include <ATen/ops/empty_like.h>
#include <ATen/ops/new_empty.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

namespace gemma {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

// Of x's shape and dtype, but `columns` in the last dimension.
at::Tensor with_columns(const at::Tensor& x, const c10::SymInt& columns) {
  auto sizes = x.sym_sizes().vec();
  sizes.back() = columns;
  return x.new_empty_symint(sizes);
}

at::Tensor linear_meta(const at::Tensor& x,
                       const at::Tensor& weight,
                       const OptionalTensor& /*scaler*/) {
  return with_columns(x, weight.sym_size(0));
}

at::Tensor embedding_meta(const at::Tensor& ids,
                          const at::Tensor& weight,
                          const OptionalTensor& /*scaler*/) {
  auto sizes = ids.sym_sizes().vec();
  const bool is_packed = weight.scalar_type() == at::kByte;
  sizes.push_back(is_packed ? weight.sym_size(1) * 2 : weight.sym_size(1));
  return ids.new_empty_symint(sizes, ids.options().dtype(at::kFloat));
}

at::Tensor rms_norm_meta(const at::Tensor& x,
                         const at::Tensor& /*weight*/,
                         double /*eps*/,
                         bool /*unit_offset*/) {
  return at::empty_like(x);
}

at::Tensor add_rms_norm_meta(const at::Tensor& /*residual*/,
                             const at::Tensor& x,
                             const at::Tensor& /*weight*/,
                             double /*eps*/,
                             bool /*unit_offset*/) {
  return at::empty_like(x);
}

at::Tensor gated_mlp_meta(const at::Tensor& x,
                          const at::Tensor& /*gate*/,
                          const OptionalTensor& /*gate_scaler*/,
                          const at::Tensor& /*up*/,
                          const OptionalTensor& /*up_scaler*/,
                          const at::Tensor& down,
                          const OptionalTensor& /*down_scaler*/) {
  return with_columns(x, down.sym_size(0));
}

at::Tensor attend_meta(const at::Tensor& qkv,
                       int64_t num_heads,
                       int64_t /*num_kv_heads*/,
                       int64_t head_dim,
                       const OptionalTensor& /*query_norm*/,
                       const OptionalTensor& /*key_norm*/,
                       double /*eps*/,
                       double /*scaling*/,
                       std::optional<double> /*softcap*/,
                       std::optional<int64_t> /*window*/,
                       const at::Tensor& /*freqs_cis*/,
                       int64_t /*position*/,
                       at::Tensor /*k*/,
                       at::Tensor /*v*/) {
  return with_columns(qkv, num_heads * head_dim);
}

std::tuple<at::Tensor, at::Tensor> sample_meta(const at::Tensor& hidden,
                                               const at::Tensor& embedding,
                                               const OptionalTensor& /*scaler*/,
                                               const OptionalTensor& /*bias*/,
                                               std::optional<double> /*softcap*/,
                                               const OptionalTensor& temperatures,
                                               const at::Tensor& /*top_ps*/,
                                               const at::Tensor& /*top_ks*/) {
  const auto options = hidden.options();
  const auto rows = hidden.sym_size(0);
  const auto tokens = hidden.new_empty_symint({rows}, options.dtype(at::kLong));
  return {temperatures ? tokens : tokens.squeeze(-1),
          hidden.new_empty_symint({rows, embedding.sym_size(0)}, options.dtype(at::kFloat))};
}

at::Tensor biased_linear_meta(const at::Tensor& x,
                              const at::Tensor& weight,
                              const at::Tensor& /*bias*/) {
  return with_columns(x, weight.sym_size(0));
}

at::Tensor layer_norm_meta(const at::Tensor& x,
                           const at::Tensor& /*weight*/,
                           const at::Tensor& /*bias*/,
                           double /*eps*/) {
  return at::empty_like(x);
}

at::Tensor gelu_mlp_meta(const at::Tensor& x,
                         const at::Tensor& /*up*/,
                         const at::Tensor& /*up_bias*/,
                         const at::Tensor& down,
                         const at::Tensor& /*down_bias*/) {
  return with_columns(x, down.sym_size(0));
}

at::Tensor attend_all_meta(const at::Tensor& q,
                           const at::Tensor& /*k*/,
                           const at::Tensor& /*v*/,
                           int64_t /*num_heads*/) {
  return at::empty_like(q);
}

at::Tensor embed_patches_meta(const at::Tensor& pixels,
                              const at::Tensor& weight,
                              const OptionalTensor& /*bias*/) {
  const auto side = weight.sym_size(2);
  const auto patches = (pixels.sym_size(2) / side) * (pixels.sym_size(3) / side);
  return weight.new_empty_symint({pixels.sym_size(0), patches, weight.sym_size(0)});
}

at::Tensor pool_patches_meta(const at::Tensor& x) {
  return x.new_empty_symint({x.sym_size(0), x.sym_size(1) / 16, x.sym_size(2)});
}

}  // namespace

TORCH_LIBRARY_IMPL(gemma, Meta, library) {
  library.impl("linear", linear_meta);
  library.impl("embedding", embedding_meta);
  library.impl("rms_norm", rms_norm_meta);
  library.impl("add_rms_norm", add_rms_norm_meta);
  library.impl("gated_mlp", gated_mlp_meta);
  library.impl("attend", attend_meta);
  library.impl("sample", sample_meta);
  library.impl("biased_linear", biased_linear_meta);
  library.impl("layer_norm", layer_norm_meta);
  library.impl("gelu_mlp", gelu_mlp_meta);
  library.impl("attend_all", attend_all_meta);
  library.impl("embed_patches", embed_patches_meta);
  library.impl("pool_patches", pool_patches_meta);
}

TORCH_LIBRARY_IMPL(gemma, Autograd, library) {
  for (const auto* const name :
       {"linear", "embedding", "rms_norm", "add_rms_norm", "gated_mlp", "attend", "sample",
        "biased_linear", "layer_norm", "gelu_mlp", "attend_all", "embed_patches", "pool_patches"}) {
    library.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace gemma
