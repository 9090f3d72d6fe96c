#include <fmt/format.h>

#include <gemma/modules/biased_linear.h>
#include <gemma/ops/ops.h>

namespace gemma {

BiasedLinearImpl::BiasedLinearImpl(int64_t in_features, int64_t out_features) {
  check_size("Linear", "in_features", in_features);
  check_size("Linear", "out_features", out_features);
  weight = register_parameter("weight", uninitialized({out_features, in_features}, default_dtype()),
                              /*requires_grad=*/false);
  bias = register_parameter("bias", uninitialized({out_features}, default_dtype()),
                            /*requires_grad=*/false);
}

torch::Tensor BiasedLinearImpl::forward(const torch::Tensor& x, Pass pass) {
  if (!is_tapped()) return ops().biased_linear(x, view(), pass);
  return tapped("hook_out", ops().biased_linear(tapped_copy("hook_in", x), view(), pass));
}

std::string BiasedLinearImpl::signature() const {
  return fmt::format("Linear(in_features={}, out_features={}, bias=True)", weight.size(1),
                     weight.size(0));
}

}  // namespace gemma
