#pragma once

#include <cstdint>
#include <string_view>

#include <torch/types.h>

namespace gemma {

/// How weights are kept in fewer bits. kInt8 is the reference's: one scale for each row. kInt4,
/// which it does not have: 4 bits and one scale for each 32 numbers in the layers, kInt8 elsewhere.
enum class Quant : uint8_t { kInt8, kInt4 };

/// "int8" or "int4". Throws std::invalid_argument, naming the valid ones, for anything else.
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

/// Whether 4 bits can hold `weight`, [N, K]: K is a multiple of WeightView::kGroup.
bool fits_int4(torch::IntArrayRef sizes);

/// Symmetric, with a scale for each group of WeightView::kGroup numbers of a row: that with the
/// least square error among some near the largest number's. `weight`: floats [N, K] -> uint8 [N, K
/// / 2] in the layout of gemma::WeightView, and float16 scales [N, K / kGroup]. Throws
/// std::invalid_argument as quantize_weight does, and when K does not fit.
QuantizedWeight quantize_weight_int4(const torch::Tensor& weight);

/// Whether `name` is the weight of a layer's Linear.
bool is_layer_weight(std::string_view name);

/// Whether `name` is the weight of a Linear or an Embedding of a Gemma model, which has a
/// `<name>_scaler` beside it when config.quant is set.
bool is_quantized_weight(std::string_view name);

}  // namespace gemma
