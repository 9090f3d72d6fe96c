#pragma once

#include <algorithm>
#include <cstdint>

#include <torch/types.h>

namespace gemma {

/// Calls visit(first, count) for all rows of `tensor` [rows, ...], some 16 MiB at a time, for work
/// on a mapped tensor whose pages are given back after each call.
template <typename Visit>
void for_row_blocks(const torch::Tensor& tensor, Visit&& visit) {
  constexpr int64_t kBlockBytes = int64_t{16} << 20;
  const auto row_bytes =
      static_cast<int64_t>(tensor.nbytes()) / std::max<int64_t>(1, tensor.size(0));
  const auto block = std::max<int64_t>(1, kBlockBytes / std::max<int64_t>(1, row_bytes));
  for (int64_t first = 0; first < tensor.size(0); first += block) {
    visit(first, std::min(block, tensor.size(0) - first));
  }
}

}  // namespace gemma
