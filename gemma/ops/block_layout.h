#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include <gemma/checkpoint/encoding.h>

namespace gemma {

/// What the bytes of a matrix in the blocks of a GGUF are: rows of one format, and perhaps more
/// rows of another one behind them.
struct BlockLayout {
  struct Part {
    Encoding encoding;
    int64_t rows;
  };

  std::vector<Part> parts;
  int64_t columns;
  at::ScalarType dtype;  // Of its numbers, for who takes them out of the blocks.

  int64_t rows() const;
  /// Of a row of the part.
  int64_t row_bytes(const Part& part) const;
  /// Of all rows.
  int64_t bytes() const;
};

/// The numbers of some rows, [rows.numel(), columns] in the layout's dtype, where the bytes are:
/// data uint8 [bytes], rows int64, each one that the layout has.
at::Tensor read_rows(const BlockLayout& layout, const at::Tensor& data, const at::Tensor& rows);

/// Those of all rows.
at::Tensor read_all(const BlockLayout& layout, const at::Tensor& data);

}  // namespace gemma
