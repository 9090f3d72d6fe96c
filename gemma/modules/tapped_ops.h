#pragma once

#include <functional>
#include <optional>
#include <span>
#include <utility>

#include <gemma/modules/rms_norm.h>
#include <gemma/modules/taps.h>
#include <gemma/ops/ops.h>

namespace gemma {

/// The reference's operations, with a function for the values inside of them.
class TappedOps : public Ops {
 public:
  using InnerFunction = std::function<at::Tensor(Inner which, const at::Tensor& value)>;

  explicit TappedOps(InnerFunction function) : function_(std::move(function)) {}

 protected:
  at::Tensor inner(Inner which, const at::Tensor& value) const override;

 private:
  InnerFunction function_;
};

/// The same for an attention, whose norms have points of their own.
class TappedAttentionOps : public TappedOps {
 public:
  TappedAttentionOps(InnerFunction function,
                     RMSNorm query_norm,
                     RMSNorm key_norm,
                     TapPasses& passes);

  at::Tensor rms_norm(const at::Tensor& x, const NormWeight& norm) const override;

  /// One segment at a time: each is a pass of its own for taps.
  at::Tensor attend_segments(const at::Tensor& qkv,
                             const HeadShape& shape,
                             const HeadNorms& norms,
                             const AttentionScale& scale,
                             std::optional<int64_t> window,
                             const at::Tensor& freqs_cis,
                             Pass pass,
                             std::span<const Segment> segments,
                             const BlockCache& cache,
                             std::span<const BlockTable> tables) const override;

 private:
  RMSNorm query_norm_, key_norm_;  // Either may be empty.
  TapPasses& passes_;
};

}  // namespace gemma
