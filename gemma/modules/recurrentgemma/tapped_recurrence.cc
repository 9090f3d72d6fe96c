#include <vector>

#include <ATen/ops/cat.h>

#include <gemma/modules/recurrentgemma/tapped_recurrence.h>

namespace gemma::recurrentgemma {

TappedRecurrence::TappedRecurrence(Conv1D conv_1d, RGLRU rg_lru, TapPasses& passes)
    : conv_1d_(std::move(conv_1d)), rg_lru_(std::move(rg_lru)), passes_(passes) {}

std::pair<at::Tensor, at::Tensor> TappedRecurrence::causal_conv(
    const at::Tensor& x,
    const BiasedWeight& /*conv*/,
    const at::Tensor& positions,
    const std::optional<at::Tensor>& state) const {
  return conv_1d_->convolve(x, positions, state);
}

std::pair<at::Tensor, at::Tensor> TappedRecurrence::rg_lru(
    const at::Tensor& x,
    const RgLruWeights& /*weights*/,
    const at::Tensor& positions,
    const std::optional<at::Tensor>& state) const {
  return rg_lru_->recur(x, positions, state);
}

at::Tensor TappedRecurrence::recur_segments(const at::Tensor& x,
                                            const BiasedWeight& conv,
                                            const RgLruWeights& weights,
                                            Pass pass,
                                            std::span<const Segment> segments,
                                            const RecurrentCache& cache,
                                            std::span<const StateSlots> slots) const {
  const auto* const rows = passes_.current();
  std::vector<at::Tensor> results;
  for (size_t i = 0; i < segments.size(); ++i) {
    std::optional<TapPasses::Pass> alone;
    if (rows != nullptr) alone.emplace(passes_, PassRows{{rows->parts[i]}, /*is_flat=*/false});
    results.push_back(Ops::recur_segments(x, conv, weights, pass, segments.subspan(i, 1), cache,
                                          slots.subspan(i, 1)));
  }
  return at::cat(results);
}

}  // namespace gemma::recurrentgemma
