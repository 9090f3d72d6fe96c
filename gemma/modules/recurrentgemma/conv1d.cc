#include <stdexcept>

#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <gemma/modules/recurrentgemma/conv1d.h>
#include <gemma/modules/recurrentgemma/positions.h>
#include <gemma/ops/ops.h>

namespace gemma::recurrentgemma {

Conv1DImpl::Conv1DImpl(int64_t width, int64_t temporal_width) {
  check_size("Conv1D", "width", width);
  if (temporal_width < 1) {
    throw std::invalid_argument(
        fmt::format("Conv1D: temporal_width is {}, but must be at least 1", temporal_width));
  }
  w = register_parameter("w", uninitialized({temporal_width, width}, default_dtype()),
                         /*requires_grad=*/false);
  b = register_parameter("b", uninitialized({width}, default_dtype()), /*requires_grad=*/false);
}

std::pair<torch::Tensor, std::optional<torch::Tensor>> Conv1DImpl::forward(
    const torch::Tensor& x,
    const torch::Tensor& segment_pos,
    const std::optional<torch::Tensor>& cache,
    bool return_cache) {
  check_positions("Conv1D", x, segment_pos);
  if (cache) {
    const std::vector<int64_t> want{x.size(0), temporal_width() - 1, x.size(2)};
    TORCH_CHECK_VALUE(cache->sizes() == at::IntArrayRef(want), "Conv1D: cache must be ",
                      at::IntArrayRef(want), ", got ", cache->sizes());
    TORCH_CHECK_VALUE(x.size(1) == 1, "Conv1D: x has ", x.size(1),
                      " tokens, but with a cache takes one; give them one by one");
  }
  auto [y, next] = convolve(x, segment_pos, cache);
  return {std::move(y), return_cache ? std::optional(std::move(next)) : std::nullopt};
}

std::pair<torch::Tensor, torch::Tensor> Conv1DImpl::convolve(
    const torch::Tensor& x,
    const torch::Tensor& segment_pos,
    const std::optional<torch::Tensor>& cache) const {
  const auto in = tapped_copy("hook_in", x);
  auto [y, next] = ops().causal_conv(in, {w, b}, segment_pos, cache);
  return {tapped("hook_out", y), std::move(next)};
}

std::vector<TapPoint> Conv1DImpl::tap_points() const {
  return {{"hook_in"}, {"hook_out", /*is_inner=*/true}};
}

torch::Tensor Conv1DImpl::init_cache(int64_t batch_size,
                                     int64_t width,
                                     torch::Dtype dtype,
                                     int64_t conv1d_temporal_width,
                                     torch::Device device) {
  return at::zeros({batch_size, conv1d_temporal_width - 1, width},
                   at::TensorOptions().dtype(dtype).device(device));
}

}  // namespace gemma::recurrentgemma
