#include <ATen/ops/gelu.h>

#include <gemma/modules/recurrentgemma/mlp_block.h>
#include <gemma/ops/ops.h>

namespace gemma::recurrentgemma {

MLPBlockImpl::MLPBlockImpl(int64_t width, int64_t expanded_width) {
  ffw_up = register_module(
      "ffw_up", Einsum(std::vector<int64_t>{2, width, expanded_width},
                       std::vector<int64_t>{2, 1, 1, expanded_width}, "...td,cdD->c...tD"));
  ffw_down = register_module("ffw_down", BiasedLinear(expanded_width, width));
}

torch::Tensor MLPBlockImpl::forward(const torch::Tensor& x, Pass pass) {
  if (!is_tapped() && !ffw_down->is_tapped()) {
    return ops().stacked_mlp(x, ffw_up->view(), ffw_down->view(), pass);
  }
  return tapped("hook_out", compute(tapped_copy("hook_in", x), pass));
}

torch::Tensor MLPBlockImpl::compute(const torch::Tensor& x, Pass pass) {
  if (!is_tapped_at("hook_pre") && !is_tapped_at("hook_pre_linear") && !ffw_down->is_tapped()) {
    return ops().stacked_mlp(x, ffw_up->view(), ffw_down->view(), pass);
  }
  const auto [gate, up] = gate_and_up(x, pass);
  const auto gated = at::gelu(tapped("hook_pre", gate), /*approximate=*/"tanh");
  return ffw_down(gated * tapped("hook_pre_linear", up), pass);
}

// Both of ffw_up: [..., width] -> [..., expanded_width] each.
std::pair<torch::Tensor, torch::Tensor> MLPBlockImpl::gate_and_up(const torch::Tensor& x,
                                                                  Pass pass) {
  if (ops().wants_transposed()) {
    const auto half = [&](int64_t i) {
      return ops().biased_linear(x, {ffw_up->w[i].t(), ffw_up->b[i].flatten()}, pass);
    };
    return {half(0), half(1)};
  }
  const bool is_flat = x.dim() == 2;  // The equation is for [B, T, width].
  const auto both = ffw_up(is_flat ? x.unsqueeze(0) : x);
  const auto half = [&](int64_t i) { return is_flat ? both[i].squeeze(0) : both[i]; };
  return {half(0), half(1)};
}

std::vector<TapPoint> MLPBlockImpl::tap_points() const {
  return {{"hook_in"}, {"hook_pre"}, {"hook_pre_linear"}, {"hook_out"}};
}

}  // namespace gemma::recurrentgemma
