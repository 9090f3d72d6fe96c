#include <utility>

#include <gemma/modules/recurrentgemma/einsum.h>
#include <gemma/ops/ops.h>

namespace gemma::recurrentgemma {

EinsumImpl::EinsumImpl(const std::vector<int64_t>& w_shape,
                       const std::vector<int64_t>& b_shape,
                       std::string eqn)
    : eqn_(std::move(eqn)) {
  for (const auto size : w_shape) check_size("Einsum", "w_shape", size);
  for (const auto size : b_shape) check_size("Einsum", "b_shape", size);
  w = register_parameter("w", uninitialized(w_shape, default_dtype()), /*requires_grad=*/false);
  b = register_parameter("b", uninitialized(b_shape, default_dtype()), /*requires_grad=*/false);
}

torch::Tensor EinsumImpl::forward(const torch::Tensor& x) {
  return ops().biased_einsum(eqn_, x, view());
}

}  // namespace gemma::recurrentgemma
