#include <stdexcept>

#include <fmt/format.h>

#include <gemma/modules/recurrentgemma/block_diagonal_linear.h>
#include <gemma/ops/ops.h>

namespace gemma::recurrentgemma {

BlockDiagonalLinearImpl::BlockDiagonalLinearImpl(int64_t width, int64_t num_blocks) {
  check_size("BlockDiagonalLinear", "width", width);
  if (num_blocks < 1 || width % num_blocks != 0) {
    throw std::invalid_argument(fmt::format(
        "BlockDiagonalLinear: num_blocks is {}, but must divide the width, {}", num_blocks, width));
  }
  const auto block = width / num_blocks;
  w = register_parameter("w", uninitialized({num_blocks, block, block}, default_dtype()),
                         /*requires_grad=*/false);
  b = register_parameter("b", uninitialized({num_blocks, block}, default_dtype()),
                         /*requires_grad=*/false);
}

torch::Tensor BlockDiagonalLinearImpl::forward(const torch::Tensor& x) {
  return tapped("hook_out", ops().block_diagonal_linear(tapped_copy("hook_in", x), view()));
}

std::vector<TapPoint> BlockDiagonalLinearImpl::tap_points() const {
  return {{"hook_in", /*is_inner=*/true}, {"hook_out", /*is_inner=*/true}};
}

}  // namespace gemma::recurrentgemma
