#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include <torch/types.h>

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/models/quantize.h>
#include <gemma/models/weights.h>

namespace gemma {

struct ConvertOptions {
  std::optional<Quant> quant;         // None: integers stay integers and floats stay floats.
  std::optional<torch::Dtype> dtype;  // Of the floats; none: as the file has them.
};

using TensorSink = std::function<void(const std::string& name, const torch::Tensor& tensor)>;

/// Hands `sink` the tensors of `checkpoint` in the order of the file, one at a time; no more than
/// one is in memory. Floats are given the dtype first and are quantised then, as by a model of that
/// dtype; a `X.weight_scaler` follows its `X.weight`. Text models lose their rotary tables, which
/// every reader computes.
///
/// `progress` is called after each tensor, with the sizes of the input. Throws std::runtime_error,
/// naming the file and the cure, when it is not in gemma_pytorch's layout, is quantised already, or
/// has weights that cannot be quantised; and what `sink` and `progress` throw.
void convert_weights(const Checkpoint& checkpoint,
                     const ConvertOptions& options,
                     const TensorSink& sink,
                     const ProgressCallback& progress = {});

/// How many bytes all tensors together are that convert_weights would hand out.
int64_t converted_bytes(const Checkpoint& checkpoint, const ConvertOptions& options);

}  // namespace gemma
