#pragma once

#include <string_view>

#include <c10/util/Exception.h>
#include <torch/types.h>

namespace gemma::recurrentgemma {

/// Throws c10::ValueError unless x is [B, T, E] and segment_pos [B, T].
inline void check_positions(std::string_view module,
                            const torch::Tensor& x,
                            const torch::Tensor& segment_pos) {
  TORCH_CHECK_VALUE(x.dim() == 3, module, ": x must be [B, T, E], got ", x.sizes());
  TORCH_CHECK_VALUE(segment_pos.sizes() == x.sizes().slice(0, 2), module, ": segment_pos must be ",
                    x.sizes().slice(0, 2), " as x is ", x.sizes(), ", got ", segment_pos.sizes());
}

}  // namespace gemma::recurrentgemma
