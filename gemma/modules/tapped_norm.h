#pragma once

#include <vector>

#include <torch/types.h>

#include <gemma/modules/module.h>
#include <gemma/modules/taps.h>
#include <gemma/ops/weight_view.h>

namespace gemma {

/// The points of an RMSNorm.
std::vector<TapPoint> rms_norm_tap_points();

/// ops.rms_norm(x, norm) with the taps of `module`, whose points are rms_norm_tap_points():
/// [..., E] -> [..., E].
torch::Tensor tapped_rms_norm(const Module& module,
                              const Ops& ops,
                              const torch::Tensor& x,
                              const NormWeight& norm);

}  // namespace gemma
