#include <gemma/modules/weight_matrix.h>

namespace gemma {

WeightMatrix::WeightMatrix(int64_t rows, int64_t columns, bool quant)
    : rows_(rows), columns_(columns) {
  const auto dtype = quant ? torch::kInt8 : default_dtype();
  weight = register_parameter("weight", uninitialized({rows, columns}, dtype),
                              /*requires_grad=*/false);
  if (quant) {
    weight_scaler = register_parameter("weight_scaler", uninitialized({rows}, default_dtype()),
                                       /*requires_grad=*/false);
  }
}

WeightView WeightMatrix::view() const {
  return blocks ? WeightView(weight, blocks) : WeightView(weight, weight_scaler);
}

torch::Dtype WeightMatrix::dtype() const {
  if (blocks) return blocks->dtype;
  return (weight_scaler.defined() ? weight_scaler : weight).scalar_type();
}

const char* WeightMatrix::quant_text() const {
  if (blocks) return ", quant='gguf'";
  if (!weight_scaler.defined()) return "";
  return weight.scalar_type() == torch::kByte ? ", quant='int4'" : ", quant=True";
}

}  // namespace gemma
