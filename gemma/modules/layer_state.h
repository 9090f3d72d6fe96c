#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <variant>

#include <gemma/ops/attention_types.h>
#include <gemma/ops/recurrence_types.h>

// What the layers of a model keep of the sequences that an engine runs.
namespace gemma {

/// A layer's need: the keys and values of each position that a token sees.
struct KeysKept {
  int64_t num_kv_heads;
  int64_t head_dim;
  std::optional<int64_t> window;  // Positions that a token sees, its own included; none: all.
};

/// A layer's need: a state of the same size however long the sequence is.
struct StateKept {
  int64_t width;        // R
  int64_t conv_inputs;  // K - 1
};

using LayerKeeps = std::variant<KeysKept, StateKept>;

/// Keys and values of one layer, and where those of the sequences of a step are among them.
struct AttentionState {
  BlockCache cache;                    // Written in place.
  std::span<const BlockTable> tables;  // One a segment.
};

/// States of one layer, and which are those of the sequences of a step.
struct RecurrentState {
  RecurrentCache cache;               // Written in place.
  std::span<const StateSlots> slots;  // One a segment.
};

/// What one layer keeps of the sequences of a step, as it needs.
using LayerState = std::variant<AttentionState, RecurrentState>;

}  // namespace gemma
