#pragma once

#include <variant>

#include <torch/types.h>

// What the blocks of a Griffin keep between calls. Shapes: B batch, W attention window, D head
// width, K width of the convolution, R width of the recurrence.
namespace gemma::recurrentgemma {

/// recurrentgemma/torch/modules.py: RecurrentBlockCache.
struct RecurrentBlockCache {
  torch::Tensor rg_lru_state;  // [B, R], float32 whatever the model's dtype
  torch::Tensor conv1d_state;  // [B, K - 1, R], the last inputs
};

/// recurrentgemma/torch/modules.py: AttentionBlockCache. A token's place is its position % W.
/// Calls write into the tensors, and give them back.
struct AttentionBlockCache {
  torch::Tensor keys;        // [B, W, 1, D]
  torch::Tensor values;      // [B, W, 1, D]
  torch::Tensor num_tokens;  // [B], of any integer dtype: all that came so far
};

/// recurrentgemma/torch/modules.py: ResidualBlockCache.
using ResidualBlockCache = std::variant<RecurrentBlockCache, AttentionBlockCache>;

}  // namespace gemma::recurrentgemma
