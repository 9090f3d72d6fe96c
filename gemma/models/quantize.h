#pragma once

#include <cstdint>
#include <string_view>

#include <torch/types.h>

namespace gemma {

/// How weights are kept in fewer bits.
enum class Quant : uint8_t { kInt8 };

/// "int8". Throws std::invalid_argument, naming the valid ones, for anything else.
Quant quant_from_string(std::string_view name);

/// weight * weight_scaler.unsqueeze(-1) is near the weight that it was made from.
struct QuantizedWeight {
  torch::Tensor weight;         // int8 [N, K].
  torch::Tensor weight_scaler;  // [N], in the dtype of what was quantised.
};

/// xla_model_parallel.py: quantize() of its layers. Symmetric, with a scale for each row, so a
/// block of rows gives what these rows have in the whole. `weight`: floats [N, K]. Throws
/// std::invalid_argument when the shape or dtype is another, or a row holds NaN or infinity.
QuantizedWeight quantize_weight(const torch::Tensor& weight);

/// Whether `name` is the weight of a Linear or an Embedding of a Gemma model, which has a
/// `<name>_scaler` beside it when config.quant is set.
bool is_quantized_weight(std::string_view name);

}  // namespace gemma
