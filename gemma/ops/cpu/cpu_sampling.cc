#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/record_function.h>

#include <gemma/ops/cpu/cpu_ops.h>
#include <gemma/ops/cpu/cpu_tensors.h>
#include <gemma/ops/exponential_draws.h>
#include <gemma/ops/logits_row.h>

namespace gemma {

std::pair<at::Tensor, at::Tensor> CpuOps::sample(const at::Tensor& hidden,
                                                 const WeightView& embedding,
                                                 const std::optional<at::Tensor>& bias,
                                                 std::optional<double> softcap,
                                                 const SamplingParams& params) const {
  RECORD_FUNCTION("gemma::sample", std::vector<c10::IValue>());
  const auto from = as_rows(hidden);
  const CpuWeight w(embedding);
  const auto rows = from.size(0);
  const auto size = w->rows;
  auto logits = at::empty({rows, size}, at::kFloat);
  auto* const all = logits.mutable_data_ptr<float>();
  multiply(from.const_data_ptr<float>(), rows, *w, Pass::kAny, all);
  if (bias) logits.add_(*bias);

  const auto temperatures = params.temperatures ? as_rows(*params.temperatures) : at::Tensor();
  const auto blocks = LogitsRow::blocks(size);
  std::vector<float> peaks(static_cast<size_t>(rows * blocks));
  LogitsRow::finish(all, rows, size, static_cast<float>(softcap.value_or(0.0)),
                    temperatures.defined()
                        ? std::span(temperatures.const_data_ptr<float>(), static_cast<size_t>(rows))
                        : std::span<const float>(),
                    peaks.data());

  auto tokens = at::empty({rows}, at::kLong);
  auto* const chosen = tokens.mutable_data_ptr<int64_t>();
  const auto row_at = [&](int64_t i) {
    return LogitsRow({all + i * size, static_cast<size_t>(size)},
                     {peaks.data() + i * blocks, static_cast<size_t>(blocks)});
  };
  if (!params.temperatures) {
    for (int64_t i = 0; i < rows; ++i) chosen[i] = row_at(i).argmax();
    return {tokens.squeeze(-1), logits};
  }
  const auto top_ps = as_rows(params.top_ps);
  const auto top_ks = params.top_ks.to(at::kLong).contiguous();
  const ExponentialDraws draws(rows * size);
  for (int64_t i = 0; i < rows; ++i) {
    const auto row = row_at(i);
    TORCH_CHECK(std::isfinite(row.highest()),
                "sample: the logits hold NaN; were the weights loaded?");
    chosen[i] = row.draw({.top_p = top_ps.const_data_ptr<float>()[i],
                          .top_k = std::max<int64_t>(1, top_ks.const_data_ptr<int64_t>()[i])},
                         draws, i * size);
  }
  return {tokens, logits};
}

at::Tensor CpuOps::logits(const at::Tensor& hidden,
                          const WeightView& embedding,
                          at::Tensor buffer) const {
  RECORD_FUNCTION("gemma::logits", std::vector<c10::IValue>());
  const auto from = as_rows(hidden);
  const CpuWeight w(embedding);
  const auto rows = from.size(0);
  if (!buffer.defined() || buffer.size(0) < rows || buffer.size(1) != w->rows) {
    buffer = at::empty({rows, w->rows}, at::kFloat);
  }
  multiply(from.const_data_ptr<float>(), rows, *w, Pass::kDecode, buffer.mutable_data_ptr<float>());
  return buffer.narrow(0, 0, rows);
}

}  // namespace gemma
