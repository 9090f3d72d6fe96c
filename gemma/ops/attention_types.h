#pragma once

#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>

#include <gemma/ops/weight_view.h>

// What attention works on, besides queries, keys and values. The legend of shapes is in ops.h.
namespace gemma {

struct HeadShape {
  int64_t num_heads;     // H
  int64_t num_kv_heads;  // K
  int64_t head_dim;      // D
};

struct AttentionScale {
  double scaling;                 // Of the queries.
  std::optional<double> softcap;  // Of the scores, before the mask.
};

/// What attention normalises queries and keys by.
struct HeadNorms {
  std::optional<NormWeight> query;
  std::optional<NormWeight> key;
};

/// One layer's keys and values.
struct KVCache {
  at::Tensor k;  // [B, S, K, D]
  at::Tensor v;  // [B, S, K, D]
};

/// One sequence's keys and values in one layer, a ring: position p is in slot p % S. The last
/// dimension is padded with zeros to a multiple of RingCache::kPadding.
struct RingCache {
  static constexpr int64_t kPadding = 8;

  at::Tensor k;  // [K, S, D padded]
  at::Tensor v;  // [K, S, D padded]
};

/// Consecutive tokens of one sequence, among the tokens of a step.
struct Segment {
  int64_t first_token;  // Among those of the step.
  int64_t tokens;
  int64_t position;  // Of the first token in its sequence.
  /// Whether each token sees the whole segment, as those of an image do. Of what is before the
  /// segment it sees what any token does.
  bool bidirectional = false;
};

}  // namespace gemma
