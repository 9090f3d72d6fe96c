#include <ATen/ATen.h>

#include <gemma/modules/module.h>
#include <gemma/modules/recurrentgemma/stacked_weight.h>

namespace gemma::recurrentgemma {

void arrange_stacked(torch::Tensor& w, const Ops& ops) {
  const bool transposed = ops.wants_transposed();
  if ((transposed ? w.transpose(1, 2) : w).is_contiguous()) return;
  const auto sizes = w.sizes().vec();
  const auto empty = [&](at::IntArrayRef of) {
    return w.is_cpu() ? uninitialized(of, w.scalar_type()) : at::empty(of, w.options());
  };
  const auto to = transposed ? empty({sizes[0], sizes[2], sizes[1]}).transpose(1, 2) : empty(sizes);
  for (int64_t i = 0; i < sizes[0]; ++i) to[i].copy_(w[i]);
  w.set_data(to);
}

}  // namespace gemma::recurrentgemma
