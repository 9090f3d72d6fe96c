#pragma once

#include <ATen/core/Tensor.h>

#include <gemma/checkpoint/tensor_entry.h>
#include <gemma/weights/weight_source.h>

namespace gemma {

/// Copies a tensor of the source into `target`, which has its sizes and any dtype and device, some
/// rows at a time. The pages of the file are given back meanwhile, so that nothing is in memory
/// twice. Throws std::runtime_error, naming the file and the tensor, when the dtype of `target`
/// cannot hold a number: float16 ends at 65504.
void copy_weight(const WeightSource& source, const TensorEntry& entry, const at::Tensor& target);

}  // namespace gemma
