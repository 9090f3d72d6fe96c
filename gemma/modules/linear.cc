#include <fmt/format.h>

#include <gemma/modules/linear.h>
#include <gemma/ops/ops.h>

namespace gemma {

LinearImpl::LinearImpl(int64_t in_features, int64_t out_features, bool quant) {
  check_size("Linear", "in_features", in_features);
  check_size("Linear", "out_features", out_features);
  const auto dtype = quant ? torch::kInt8 : default_dtype();
  weight = register_parameter("weight", uninitialized({out_features, in_features}, dtype),
                              /*requires_grad=*/false);
  if (quant) {
    weight_scaler =
        register_parameter("weight_scaler", uninitialized({out_features}, default_dtype()),
                           /*requires_grad=*/false);
  }
}

torch::Tensor LinearImpl::forward(const torch::Tensor& x, Pass pass) {
  if (!is_tapped()) return ops().linear(x, view(), pass);
  return tapped("hook_out", ops().linear(tapped_copy("hook_in", x), view(), pass));
}

std::vector<TapPoint> LinearImpl::tap_points() const { return {{"hook_in"}, {"hook_out"}}; }

std::string LinearImpl::signature() const {
  const bool packed = weight.scalar_type() == torch::kByte;
  return fmt::format("Linear(in_features={}, out_features={}, bias=False{})",
                     packed ? 2 * weight.size(1) : weight.size(1), weight.size(0),
                     packed ? ", quant='int4'" : (weight_scaler.defined() ? ", quant=True" : ""));
}

}  // namespace gemma
