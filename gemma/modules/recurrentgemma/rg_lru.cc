#include <ATen/ops/zeros.h>

#include <gemma/modules/recurrentgemma/positions.h>
#include <gemma/modules/recurrentgemma/rg_lru.h>
#include <gemma/ops/ops.h>

namespace gemma::recurrentgemma {

RGLRUImpl::RGLRUImpl(int64_t width, int64_t num_heads) {
  check_size("RGLRU", "width", width);
  a_param = register_parameter("a_param", uninitialized({width}, default_dtype()),
                               /*requires_grad=*/false);
  input_gate = register_module("input_gate", BlockDiagonalLinear(width, num_heads));
  a_gate = register_module("a_gate", BlockDiagonalLinear(width, num_heads));
}

std::pair<torch::Tensor, std::optional<torch::Tensor>> RGLRUImpl::forward(
    const torch::Tensor& x,
    const torch::Tensor& segment_pos,
    const std::optional<torch::Tensor>& cache,
    bool return_cache) {
  check_positions("RGLRU", x, segment_pos);
  auto [y, state] = ops().rg_lru(x, view(), segment_pos, cache);
  return {std::move(y), return_cache ? std::optional(std::move(state)) : std::nullopt};
}

torch::Tensor RGLRUImpl::init_cache(int64_t batch_size, int64_t width, torch::Device device) {
  return at::zeros({batch_size, width}, at::TensorOptions().dtype(at::kFloat).device(device));
}

}  // namespace gemma::recurrentgemma
