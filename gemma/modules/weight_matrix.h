#pragma once

#include <cstdint>
#include <memory>

#include <gemma/modules/module.h>
#include <gemma/ops/weight_view.h>

namespace gemma {

/// Base of the modules that are a matrix: Linear and Embedding.
class WeightMatrix : public Module {
 public:
  /// Without contents: [rows, columns] in the default dtype, or with quant int8 and a scale a row.
  WeightMatrix(int64_t rows, int64_t columns, bool quant);

  /// The matrix in the form that operations take.
  WeightView view() const;

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  /// Of the matrix as floats: the dtype of `weight`, of its scales, or of its blocks' layout.
  torch::Dtype dtype() const;

  // [rows, columns], default dtype or int8; of 4 bits uint8 [rows, columns / 2], of blocks uint8
  // [bytes].
  torch::Tensor weight;
  torch::Tensor weight_scaler;                // [rows]; undefined unless quant
  std::shared_ptr<const BlockLayout> blocks;  // Of `weight`; null unless it is in blocks.

 protected:
  /// ", quant=True" and the like, for the signature.
  const char* quant_text() const;

 private:
  int64_t rows_, columns_;
};

}  // namespace gemma
