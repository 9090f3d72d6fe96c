#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <torch/types.h>

#include <gemma/checkpoint/safetensors_writer.h>
#include <gemma/convert/quantize.h>
#include <gemma/weights/weight_source.h>
#include <gemma/weights/weights.h>

namespace gemma {

struct ConvertOptions {
  std::optional<Quant> quant;         // None: integers stay integers and floats stay floats.
  std::optional<torch::Dtype> dtype;  // Of the floats; none: as the file has them.
};

using TensorSink = std::function<void(const std::string& name, const torch::Tensor& tensor)>;

/// Hands `sink` the tensors of `source` in the order of the file, one at a time; no more than
/// one is in memory. Floats are given the dtype first and are quantised then, as by a model of that
/// dtype; a `X.weight_scaler` follows its `X.weight`. Text models lose their rotary tables, which
/// every reader computes.
///
/// `progress` is called after each tensor, with the sizes of the input. Throws std::runtime_error,
/// naming the file and the cure, when it is not in gemma_pytorch's layout, is quantised already, or
/// has weights that cannot be quantised; and what `sink` and `progress` throw.
void convert_weights(const WeightSource& source,
                     const ConvertOptions& options,
                     const TensorSink& sink,
                     const ProgressCallback& progress = {});

/// What convert_weights will hand out, in its order.
std::vector<TensorSpec> converted_tensors(const WeightSource& source,
                                          const ConvertOptions& options);

/// How many bytes all of them together are.
int64_t converted_bytes(const WeightSource& source, const ConvertOptions& options);

}  // namespace gemma
