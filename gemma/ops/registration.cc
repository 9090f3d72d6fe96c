// The fast operations as torch.ops.gemma.*, for tests and profilers that know operators by name.
#include <numeric>
#include <optional>
#include <tuple>
#include <vector>

#include <torch/library.h>

#include <gemma/ops/ops.h>

namespace gemma {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

const Ops& ops() { return ops_for(Numerics::kFast, at::kCPU); }

WeightView weight_of(const at::Tensor& data, const OptionalTensor& scaler) {
  return {data, scaler.value_or(at::Tensor())};
}

std::optional<NormWeight> norm_of(const OptionalTensor& weight, double eps) {
  if (!weight) return std::nullopt;
  return NormWeight{*weight, eps, /*add_unit_offset=*/true};
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& scaler) {
  return ops().linear(x, weight_of(weight, scaler), Pass::kAny);
}

at::Tensor embedding(const at::Tensor& ids,
                     const at::Tensor& weight,
                     const OptionalTensor& scaler) {
  return ops().embedding(ids, weight_of(weight, scaler));
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, bool unit_offset) {
  return ops().rms_norm(x, {weight, eps, unit_offset});
}

at::Tensor add_rms_norm(const at::Tensor& residual,
                        const at::Tensor& x,
                        const at::Tensor& weight,
                        double eps,
                        bool unit_offset) {
  return ops().add_rms_norm(residual, x, {weight, eps, unit_offset});
}

at::Tensor gated_mlp(const at::Tensor& x,
                     const at::Tensor& gate,
                     const OptionalTensor& gate_scaler,
                     const at::Tensor& up,
                     const OptionalTensor& up_scaler,
                     const at::Tensor& down,
                     const OptionalTensor& down_scaler) {
  return ops().gated_mlp(x, weight_of(gate, gate_scaler), weight_of(up, up_scaler),
                         weight_of(down, down_scaler), Pass::kAny);
}

// One sequence: tokens at `position` and after it, whose blocks are those of k and v in order.
at::Tensor attend(const at::Tensor& qkv,
                  int64_t num_heads,
                  int64_t num_kv_heads,
                  int64_t head_dim,
                  const OptionalTensor& query_norm,
                  const OptionalTensor& key_norm,
                  double eps,
                  double scaling,
                  std::optional<double> softcap,
                  std::optional<int64_t> window,
                  const at::Tensor& freqs_cis,
                  int64_t position,
                  at::Tensor k,
                  at::Tensor v) {
  const Segment segment{.first_token = 0, .tokens = qkv.size(0), .position = position};
  const BlockCache cache{std::move(k), std::move(v)};
  std::vector<int32_t> blocks(static_cast<size_t>(cache.k.size(0)));
  std::iota(blocks.begin(), blocks.end(), 0);
  const BlockTable table{blocks};
  const auto pass = qkv.size(0) == 1 ? Pass::kDecode : Pass::kPrompt;
  return ops().attend_segments(
      qkv, {num_heads, num_kv_heads, head_dim}, {norm_of(query_norm, eps), norm_of(key_norm, eps)},
      {scaling, softcap}, window, freqs_cis.narrow(0, position, qkv.size(0)), pass, {&segment, 1},
      cache, {&table, 1});
}

std::tuple<at::Tensor, at::Tensor> sample(const at::Tensor& hidden,
                                          const at::Tensor& embedding,
                                          const OptionalTensor& scaler,
                                          const OptionalTensor& bias,
                                          std::optional<double> softcap,
                                          const OptionalTensor& temperatures,
                                          const at::Tensor& top_ps,
                                          const at::Tensor& top_ks) {
  return ops().sample(hidden, weight_of(embedding, scaler), bias, softcap,
                      {temperatures, top_ps, top_ks});
}

at::Tensor biased_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return ops().biased_linear(x, {weight, bias}, Pass::kAny);
}

at::Tensor layer_norm(const at::Tensor& x,
                      const at::Tensor& weight,
                      const at::Tensor& bias,
                      double eps) {
  return ops().layer_norm(x, {weight, bias, eps});
}

at::Tensor gelu_mlp(const at::Tensor& x,
                    const at::Tensor& up,
                    const at::Tensor& up_bias,
                    const at::Tensor& down,
                    const at::Tensor& down_bias) {
  return ops().gelu_mlp(x, {up, up_bias}, {down, down_bias});
}

at::Tensor attend_all(const at::Tensor& q,
                      const at::Tensor& k,
                      const at::Tensor& v,
                      int64_t num_heads) {
  return ops().attend_all(q, k, v, num_heads);
}

at::Tensor embed_patches(const at::Tensor& pixels,
                         const at::Tensor& weight,
                         const OptionalTensor& bias) {
  return ops().embed_patches(pixels, weight, bias.value_or(at::Tensor()));
}

at::Tensor pool_patches(const at::Tensor& x) { return ops().pool_patches(x); }

}  // namespace

TORCH_LIBRARY(gemma, library) {
  library.def("linear(Tensor x, Tensor weight, Tensor? scaler=None) -> Tensor");
  library.def("embedding(Tensor ids, Tensor weight, Tensor? scaler=None) -> Tensor");
  library.def("rms_norm(Tensor x, Tensor weight, float eps=1e-6, bool unit_offset=True) -> Tensor");
  library.def(
      "add_rms_norm(Tensor residual, Tensor x, Tensor weight, float eps=1e-6, bool "
      "unit_offset=True) -> Tensor");
  library.def(
      "gated_mlp(Tensor x, Tensor gate, Tensor? gate_scaler, Tensor up, Tensor? up_scaler, Tensor "
      "down, Tensor? down_scaler) -> Tensor");
  library.def(
      "attend(Tensor qkv, int num_heads, int num_kv_heads, int head_dim, Tensor? query_norm, "
      "Tensor? key_norm, float eps, float scaling, float? softcap, int? window, Tensor freqs_cis, "
      "int position, Tensor(a!) k, Tensor(b!) v) -> Tensor");
  library.def(
      "sample(Tensor hidden, Tensor embedding, Tensor? scaler, Tensor? bias, float? softcap, "
      "Tensor? temperatures, Tensor top_ps, Tensor top_ks) -> (Tensor, Tensor)");
  library.def("biased_linear(Tensor x, Tensor weight, Tensor bias) -> Tensor");
  library.def("layer_norm(Tensor x, Tensor weight, Tensor bias, float eps=1e-6) -> Tensor");
  library.def(
      "gelu_mlp(Tensor x, Tensor up, Tensor up_bias, Tensor down, Tensor down_bias) -> Tensor");
  library.def("attend_all(Tensor q, Tensor k, Tensor v, int num_heads) -> Tensor");
  library.def("embed_patches(Tensor pixels, Tensor weight, Tensor? bias=None) -> Tensor");
  library.def("pool_patches(Tensor x) -> Tensor");
}

TORCH_LIBRARY_IMPL(gemma, CPU, library) {
  library.impl("linear", linear);
  library.impl("embedding", embedding);
  library.impl("rms_norm", rms_norm);
  library.impl("add_rms_norm", add_rms_norm);
  library.impl("gated_mlp", gated_mlp);
  library.impl("attend", attend);
  library.impl("sample", sample);
  library.impl("biased_linear", biased_linear);
  library.impl("layer_norm", layer_norm);
  library.impl("gelu_mlp", gelu_mlp);
  library.impl("attend_all", attend_all);
  library.impl("embed_patches", embed_patches);
  library.impl("pool_patches", pool_patches);
}

}  // namespace gemma
