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
  at::ScalarType dtype;  // That read_rows and read_all return.

  int64_t rows() const;
  /// Of a row of the part.
  int64_t row_bytes(const Part& part) const;
  /// Of all rows.
  int64_t bytes() const;
};

/// The numbers of some rows as ggml computes them, [rows.numel(), columns] in the layout's dtype,
/// on the device of `data`: data uint8 [layout.bytes()], rows int64 of any shape. Throws
/// c10::IndexError for a row that the layout does not have.
at::Tensor read_rows(const BlockLayout& layout, const at::Tensor& data, const at::Tensor& rows);

/// Those of all rows.
at::Tensor read_all(const BlockLayout& layout, const at::Tensor& data);

}  // namespace gemma
