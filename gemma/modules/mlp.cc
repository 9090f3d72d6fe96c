#include <gemma/modules/mlp.h>
#include <gemma/ops/ops.h>

namespace gemma {

GemmaMLPImpl::GemmaMLPImpl(int64_t hidden_size, int64_t intermediate_size, bool quant)
    : gate_proj(register_module("gate_proj", Linear(hidden_size, intermediate_size, quant))),
      up_proj(register_module("up_proj", Linear(hidden_size, intermediate_size, quant))),
      down_proj(register_module("down_proj", Linear(intermediate_size, hidden_size, quant))) {}

torch::Tensor GemmaMLPImpl::forward(const torch::Tensor& x, Pass pass) {
  return ops().gated_mlp(x, gate_proj->view(), up_proj->view(), down_proj->view(), pass);
}

}  // namespace gemma
