#include <vector>

#include <ATen/ops/cat.h>

#include <gemma/modules/tapped_ops.h>

namespace gemma {

at::Tensor TappedOps::inner(Inner which, const at::Tensor& value) const {
  return function_(which, value);
}

TappedAttentionOps::TappedAttentionOps(InnerFunction function,
                                       RMSNorm query_norm,
                                       RMSNorm key_norm,
                                       TapPasses& passes)
    : TappedOps(std::move(function)),
      query_norm_(std::move(query_norm)),
      key_norm_(std::move(key_norm)),
      passes_(passes) {}

at::Tensor TappedAttentionOps::rms_norm(const at::Tensor& x, const NormWeight& norm) const {
  auto module = norm.weight.is_same(query_norm_->weight) ? query_norm_ : key_norm_;
  return module(x);
}

at::Tensor TappedAttentionOps::attend_segments(const at::Tensor& qkv,
                                               const HeadShape& shape,
                                               const HeadNorms& norms,
                                               const AttentionScale& scale,
                                               std::optional<int64_t> window,
                                               const at::Tensor& freqs_cis,
                                               Pass pass,
                                               std::span<const Segment> segments,
                                               const BlockCache& cache,
                                               std::span<const BlockTable> tables) const {
  const auto* const rows = passes_.current();
  std::vector<at::Tensor> results;
  for (size_t i = 0; i < segments.size(); ++i) {
    std::optional<TapPasses::Pass> alone;
    if (rows != nullptr) alone.emplace(passes_, PassRows{{rows->parts[i]}, /*is_flat=*/false});
    auto segment = segments[i];
    const auto first = std::exchange(segment.first_token, 0);
    results.push_back(Ops::attend_segments(qkv.narrow(0, first, segment.tokens), shape, norms,
                                           scale, window,
                                           freqs_cis.narrow(0, first, segment.tokens), pass,
                                           {&segment, 1}, cache, tables.subspan(i, 1)));
  }
  return at::cat(results);
}

}  // namespace gemma
