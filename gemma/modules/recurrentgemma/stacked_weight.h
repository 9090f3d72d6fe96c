#pragma once

#include <torch/types.h>

#include <gemma/ops/ops.h>

namespace gemma::recurrentgemma {

/// Has the matrices of w [n, in, out] lie in memory as `ops` wants them: as they are, or
/// transposed, as the weights of other layers are. Values and shape stay.
void arrange_stacked(torch::Tensor& w, const Ops& ops);

}  // namespace gemma::recurrentgemma
