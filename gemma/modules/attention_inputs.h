#pragma once

#include <optional>
#include <span>
#include <variant>

#include <ATen/core/Tensor.h>

#include <gemma/ops/attention_types.h>

namespace gemma {

/// Inputs of attention besides hidden states [B, L, E], as in the reference: rows of equal length
/// over one dense cache.
struct DenseInputs {
  at::Tensor freqs_cis;                  // complex64 [L, D / 2], the rows of the tokens' positions.
  at::Tensor kv_write_indices;           // int64 [L]
  KVCache kv_cache;                      // [B, S, K, D] each, written in place.
  at::Tensor mask;                       // float32 [1 or B, 1, L, S], added to the scores.
  std::optional<at::Tensor> local_mask;  // Replaces `mask` in a local layer with a window.
};

/// Inputs of attention besides hidden states [T, E], in an engine: tokens of any sequences, each
/// with its own cache.
struct SegmentInputs {
  at::Tensor freqs_cis;               // complex64 [positions, D / 2], the whole table.
  std::span<const Segment> segments;  // They cover the rows of the hidden states.
  std::span<const RingCache> caches;  // One a segment, written in place.
};

using AttentionInputs = std::variant<DenseInputs, SegmentInputs>;

}  // namespace gemma
