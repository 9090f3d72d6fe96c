#pragma once

#include <optional>
#include <span>
#include <variant>

#include <ATen/core/Tensor.h>

#include <gemma/modules/layer_state.h>
#include <gemma/ops/attention_types.h>
#include <gemma/ops/pass.h>

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

/// What a pass of an engine needs besides hidden states [T, E]: tokens of any sequences.
struct Step {
  Pass pass;
  std::span<const Segment> segments;    // They cover the rows of the hidden states.
  std::span<const LayerState> layers;   // One a layer.
  std::span<const int64_t> texts = {};  // The segments' texts, for taps; none: 0, 1, …
};

/// Inputs of a layer besides hidden states [T, E], in an engine.
struct StepInputs {
  at::Tensor freqs_cis;  // complex64 [T, D / 2], the rows of the tokens' positions.
  Pass pass;
  std::span<const Segment> segments;
  const LayerState& state;
};

using AttentionInputs = std::variant<DenseInputs, StepInputs>;

/// What the rows of the hidden states are.
inline Pass pass_of(const AttentionInputs& inputs) {
  const auto* step = std::get_if<StepInputs>(&inputs);
  return step == nullptr ? Pass::kAny : step->pass;
}

}  // namespace gemma
