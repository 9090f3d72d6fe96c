#include <fmt/format.h>

#include <gemma/modules/linear.h>
#include <gemma/ops/ops.h>

namespace gemma {

LinearImpl::LinearImpl(int64_t in_features, int64_t out_features, bool quant)
    : WeightMatrix(check_size("Linear", "out_features", out_features),
                   check_size("Linear", "in_features", in_features),
                   quant) {}

torch::Tensor LinearImpl::forward(const torch::Tensor& x, Pass pass) {
  if (!is_tapped()) return ops().linear(x, view(), pass);
  return tapped("hook_out", ops().linear(tapped_copy("hook_in", x), view(), pass));
}

std::vector<TapPoint> LinearImpl::tap_points() const { return {{"hook_in"}, {"hook_out"}}; }

std::string LinearImpl::signature() const {
  return fmt::format("Linear(in_features={}, out_features={}, bias=False{})", columns(), rows(),
                     quant_text());
}

}  // namespace gemma
