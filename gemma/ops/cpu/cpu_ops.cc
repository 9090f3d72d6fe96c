#include <algorithm>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/record_function.h>

#include <gemma/ops/cpu/cpu_ops.h>
#include <gemma/ops/cpu/cpu_tensors.h>
#include <gemma/ops/parallel.h>

namespace gemma {
namespace {

// Empty float32 of x's shape, but `columns` in the last dimension.
at::Tensor empty_rows(const at::Tensor& x, int64_t columns) {
  auto sizes = x.sizes().vec();
  sizes.back() = columns;
  return at::empty(sizes, at::kFloat);
}

void check_columns(const at::Tensor& x, const cpu::WeightView& w) {
  TORCH_CHECK(x.dim() > 0 && x.size(-1) == w.columns, "linear: x is ", x.sizes(),
              ", but the weight takes ", w.columns, " features");
}

at::Tensor normed(const at::Tensor& x, const NormWeight& norm, const at::Tensor* residual) {
  const auto from = as_rows(x);
  const CpuWeight weight(norm.weight);
  check_columns(from, *weight);
  const auto added = residual == nullptr ? at::Tensor() : as_rows(*residual);
  auto out = at::empty_like(from);
  const auto size = from.size(-1);
  const auto row = [&, in = from.const_data_ptr<float>(), to = out.mutable_data_ptr<float>(),
                    add = added.defined() ? added.const_data_ptr<float>() : nullptr](
                       int64_t i, int64_t /*worker*/) {
    cpu::kernels().rms_norm(in + i * size, *weight, norm.add_unit_offset ? 1.0F : 0.0F,
                            static_cast<float>(norm.eps), add ? add + i * size : nullptr,
                            to + i * size);
  };
  each_row(row_count(from), row);
  return in_dtype(out, x.scalar_type());
}

}  // namespace

at::Tensor CpuOps::linear(const at::Tensor& x, const WeightView& weight, Pass pass) const {
  RECORD_FUNCTION("gemma::linear", std::vector<c10::IValue>());
  const auto from = as_rows(x);
  const CpuWeight w(weight);
  check_columns(from, *w);
  auto out = empty_rows(from, w->rows);
  multiply(from.const_data_ptr<float>(), row_count(from), *w, pass, out.mutable_data_ptr<float>());
  return in_dtype(out, x.scalar_type());
}

at::Tensor CpuOps::embedding(const at::Tensor& ids, const WeightView& weight) const {
  RECORD_FUNCTION("gemma::embedding", std::vector<c10::IValue>());
  const auto rows = ids.to(at::kLong).contiguous();
  const CpuWeight w(weight);
  auto sizes = ids.sizes().vec();
  sizes.push_back(w->columns);
  auto out = at::empty(sizes, at::kFloat);
  const auto* const row = rows.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < rows.numel(); ++i) {
    TORCH_CHECK_INDEX(row[i] >= 0 && row[i] < w->rows, "embedding: token id ", row[i],
                      " is not below the vocabulary's size, ", w->rows);
    cpu::kernels().read_row(*w, row[i], out.mutable_data_ptr<float>() + i * w->columns);
  }
  return out;
}

at::Tensor CpuOps::rms_norm(const at::Tensor& x, const NormWeight& norm) const {
  RECORD_FUNCTION("gemma::rms_norm", std::vector<c10::IValue>());
  return normed(x, norm, nullptr);
}

at::Tensor CpuOps::add_rms_norm(const at::Tensor& residual,
                                const at::Tensor& x,
                                const NormWeight& norm) const {
  RECORD_FUNCTION("gemma::add_rms_norm", std::vector<c10::IValue>());
  TORCH_CHECK(residual.sizes() == x.sizes(), "add_rms_norm: residual is ", residual.sizes(),
              ", but x is ", x.sizes());
  return normed(x, norm, &residual);
}

at::Tensor CpuOps::gated_mlp(const at::Tensor& x,
                             const WeightView& gate,
                             const WeightView& up,
                             const WeightView& down,
                             Pass pass) const {
  RECORD_FUNCTION("gemma::gated_mlp", std::vector<c10::IValue>());
  const auto from = as_rows(x);
  const CpuWeight gates(gate);
  const CpuWeight ups(up);
  const CpuWeight downs(down);
  check_columns(from, *gates);
  TORCH_CHECK(
      ups->rows == gates->rows && ups->columns == gates->columns && downs->columns == gates->rows,
      "gated_mlp: gate, up and down do not fit: ", gate.data.sizes(), ", ", up.data.sizes(), ", ",
      down.data.sizes());
  const auto act = empty_rows(from, gates->rows);
  multiply_gated(from.const_data_ptr<float>(), row_count(from), {*gates, *ups}, pass,
                 act.mutable_data_ptr<float>());
  auto out = empty_rows(from, downs->rows);
  multiply(act.const_data_ptr<float>(), row_count(act), *downs, pass,
           out.mutable_data_ptr<float>());
  return in_dtype(out, x.scalar_type());
}

at::Tensor CpuOps::rotate_and_cache(const at::Tensor& qkv,
                                    const HeadShape& shape,
                                    const HeadNorms& norms,
                                    const at::Tensor& freqs_cis,
                                    const at::Tensor& write_indices,
                                    const KVCache& cache) const {
  const KVCache wide{cache.k.to(at::kFloat), cache.v.to(at::kFloat)};
  auto q = Ops::rotate_and_cache(as_rows(qkv), shape, norms, freqs_cis, write_indices, wide);
  if (cache.k.scalar_type() != at::kFloat) {
    cache.k.copy_(wide.k);
    cache.v.copy_(wide.v);
  }
  return q;
}

at::Tensor CpuOps::attend(const at::Tensor& q,
                          const KVCache& cache,
                          const at::Tensor& mask,
                          const AttentionScale& scale) const {
  const KVCache wide{cache.k.to(at::kFloat), cache.v.to(at::kFloat)};
  return Ops::attend(q, wide, mask, scale);
}

}  // namespace gemma
