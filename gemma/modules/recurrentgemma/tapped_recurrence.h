#pragma once

#include <optional>
#include <span>
#include <utility>

#include <gemma/modules/recurrentgemma/conv1d.h>
#include <gemma/modules/recurrentgemma/rg_lru.h>
#include <gemma/modules/taps.h>
#include <gemma/ops/ops.h>

namespace gemma::recurrentgemma {

/// The reference's operations, with the steps of recur_segments computed by their modules, which
/// have points.
class TappedRecurrence : public Ops {
 public:
  TappedRecurrence(Conv1D conv_1d, RGLRU rg_lru, TapPasses& passes);

  std::pair<at::Tensor, at::Tensor> causal_conv(
      const at::Tensor& x,
      const BiasedWeight& conv,
      const at::Tensor& positions,
      const std::optional<at::Tensor>& state) const override;

  std::pair<at::Tensor, at::Tensor> rg_lru(const at::Tensor& x,
                                           const RgLruWeights& weights,
                                           const at::Tensor& positions,
                                           const std::optional<at::Tensor>& state) const override;

  /// One segment at a time: each is a pass of its own for taps.
  at::Tensor recur_segments(const at::Tensor& x,
                            const BiasedWeight& conv,
                            const RgLruWeights& weights,
                            Pass pass,
                            std::span<const Segment> segments,
                            const RecurrentCache& cache,
                            std::span<const StateSlots> slots) const override;

 private:
  Conv1D conv_1d_;
  RGLRU rg_lru_;
  TapPasses& passes_;
};

}  // namespace gemma::recurrentgemma
