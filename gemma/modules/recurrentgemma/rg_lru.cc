#include <ATen/ops/zeros.h>

#include <gemma/modules/recurrentgemma/positions.h>
#include <gemma/modules/recurrentgemma/rg_lru.h>
#include <gemma/modules/tapped_ops.h>
#include <gemma/ops/ops.h>

namespace gemma::recurrentgemma {
namespace {

// The reference's operations, with the gates computed by their modules, which have points.
class TappedGates : public TappedOps {
 public:
  TappedGates(InnerFunction function, BlockDiagonalLinear input_gate, BlockDiagonalLinear a_gate)
      : TappedOps(std::move(function)),
        input_gate_(std::move(input_gate)),
        a_gate_(std::move(a_gate)) {}

  at::Tensor block_diagonal_linear(const at::Tensor& x, const BiasedWeight& blocks) const override {
    auto gate = blocks.weight.is_same(input_gate_->w) ? input_gate_ : a_gate_;
    return gate(x);
  }

 private:
  BlockDiagonalLinear input_gate_, a_gate_;
};

}  // namespace

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
  auto [y, state] = recur(x, segment_pos, cache);
  return {std::move(y), return_cache ? std::optional(std::move(state)) : std::nullopt};
}

std::pair<torch::Tensor, torch::Tensor> RGLRUImpl::recur(
    const torch::Tensor& x,
    const torch::Tensor& segment_pos,
    const std::optional<torch::Tensor>& cache) const {
  auto [y, state] = compute(tapped_copy("hook_in", x), segment_pos, cache);
  // Of one token, the state may be in the same memory.
  return {tapped_copy("hook_out", y), std::move(state)};
}

std::pair<torch::Tensor, torch::Tensor> RGLRUImpl::compute(
    const torch::Tensor& x,
    const torch::Tensor& segment_pos,
    const std::optional<torch::Tensor>& cache) const {
  if (!are_gates_tapped()) return ops().rg_lru(x, view(), segment_pos, cache);
  const auto inner = [this](Inner which, const at::Tensor& value) {
    switch (which) {
      case Inner::kInputGate:
        return tapped("hook_gate_x", value);
      case Inner::kDecayGate:
        return tapped("hook_gate_a", value);
      case Inner::kDecay:
        return tapped("hook_a", value);
      case Inner::kGatedInput:
        return tapped("hook_normalized_x", value);
      default:
        return value;
    }
  };
  return TappedGates(inner, input_gate, a_gate).rg_lru(x, view(), segment_pos, cache);
}

bool RGLRUImpl::are_gates_tapped() const {
  return is_tapped_inside() || input_gate->is_tapped() || a_gate->is_tapped();
}

std::vector<TapPoint> RGLRUImpl::tap_points() const {
  return {{"hook_in", /*is_inner=*/true},           {"hook_gate_x", /*is_inner=*/true},
          {"hook_gate_a", /*is_inner=*/true},       {"hook_a", /*is_inner=*/true},
          {"hook_normalized_x", /*is_inner=*/true}, {"hook_out"}};
}

torch::Tensor RGLRUImpl::init_cache(int64_t batch_size, int64_t width, torch::Device device) {
  return at::zeros({batch_size, width}, at::TensorOptions().dtype(at::kFloat).device(device));
}

}  // namespace gemma::recurrentgemma
