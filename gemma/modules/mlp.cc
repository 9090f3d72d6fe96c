#include <ATen/ops/gelu.h>

#include <gemma/modules/mlp.h>
#include <gemma/ops/ops.h>

namespace gemma {

GemmaMLPImpl::GemmaMLPImpl(int64_t hidden_size, int64_t intermediate_size, bool quant)
    : gate_proj(register_module("gate_proj", Linear(hidden_size, intermediate_size, quant))),
      up_proj(register_module("up_proj", Linear(hidden_size, intermediate_size, quant))),
      down_proj(register_module("down_proj", Linear(intermediate_size, hidden_size, quant))) {}

torch::Tensor GemmaMLPImpl::forward(const torch::Tensor& x, Pass pass) {
  if (!is_tapped()) return compute(x, pass);
  return tapped("hook_out", compute(tapped_copy("hook_in", x), pass));
}

torch::Tensor GemmaMLPImpl::compute(const torch::Tensor& x, Pass pass) {
  if (!gate_proj->is_tapped() && !up_proj->is_tapped() && !down_proj->is_tapped()) {
    return ops().gated_mlp(x, gate_proj->view(), up_proj->view(), down_proj->view(), pass);
  }
  const auto gated = at::gelu(gate_proj(x, pass), /*approximate=*/"tanh");
  return down_proj(gated * up_proj(x, pass), pass);
}

std::vector<TapPoint> GemmaMLPImpl::tap_points() const { return {{"hook_in"}, {"hook_out"}}; }

}  // namespace gemma
