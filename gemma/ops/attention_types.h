#pragma once

#include <cstdint>
#include <optional>
#include <span>

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

/// One layer's keys and values, of any sequences, in blocks of positions. What nobody wrote is
/// never read, and need not be initialised.
struct BlockCache {
  static constexpr int64_t kPositions = 64;  // Of a block.
  static constexpr int64_t kPadding = 8;     // D is padded with zeros to a multiple of this.

  static int64_t blocks_for(int64_t positions) { return (positions + kPositions - 1) / kPositions; }
  static int64_t padded(int64_t head_dim) {
    return (head_dim + kPadding - 1) / kPadding * kPadding;
  }

  at::Tensor k;  // [blocks, K, kPositions, D padded]
  at::Tensor v;  // Likewise.
};

/// The blocks of one sequence: position p is in blocks[p / BlockCache::kPositions - first]. Blocks
/// before `first` are kept no longer.
struct BlockTable {
  std::span<const int32_t> blocks;
  int64_t first = 0;
};

/// What the window of a local layer bounds: what is before a token, as in an image of Gemma 3; that
/// and what is after it, to as many tokens, as in a text of EmbeddingGemma; or nothing, as in a
/// prefix of PaliGemma.
enum class WindowSide { kBefore, kBoth, kNone };

/// Consecutive tokens of one sequence, among the tokens of a step.
struct Segment {
  int64_t first_token;  // Among those of the step.
  int64_t tokens;
  int64_t position;  // Of the first token in its sequence.
  /// Whether each token sees the whole segment, as those of an image do. Of what is before the
  /// segment it sees what any token does.
  bool bidirectional = false;
  /// Of a bidirectional segment. kNone only at position 0, as blocks before a window may be gone.
  WindowSide window_side = WindowSide::kBefore;
};

}  // namespace gemma
