#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

// What a recurrence works on, besides the numbers of its tokens. R is its width, K that of the
// convolution before it.
namespace gemma {

/// One recurrent layer's states, of any sequences: a slot each. What nobody wrote is never read,
/// and need not be initialised.
struct RecurrentCache {
  at::Tensor rg_lru_state;  // float32 [slots, R]
  at::Tensor conv1d_state;  // float32 [slots, K - 1, R], the last inputs.
};

/// Where the tokens of a segment find the state of their sequence, and where they leave it. Two
/// slots, so that a pass which fails leaves what was there. Tokens at position 0 find none.
struct StateSlots {
  int32_t from;
  int32_t to;
};

}  // namespace gemma
