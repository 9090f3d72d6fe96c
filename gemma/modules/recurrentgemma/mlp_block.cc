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
  return ops().stacked_mlp(x, ffw_up->view(), ffw_down->view(), pass);
}

}  // namespace gemma::recurrentgemma
