#pragma once

#include <ATen/core/Tensor.h>

#include <gemma/ops/cpu/kernels.h>
#include <gemma/ops/ops.h>

// Tensors as the kernels take them, for the files that implement CpuOps.
namespace gemma {

/// x as float32 rows one after the other; x itself if it is that.
at::Tensor as_rows(const at::Tensor& x);

/// A weight's memory and its description, alive together.
class MatrixTensor {
 public:
  explicit MatrixTensor(const Weight& weight);
  const cpu::Matrix& operator*() const { return matrix_; }
  const cpu::Matrix* operator->() const { return &matrix_; }

 private:
  at::Tensor data_, scales_;
  cpu::Matrix matrix_;
};

/// At most kFewRows rows of activations, in the form that a kind of weight wants.
class FewRows {
 public:
  /// x [rows, w.columns], which has to outlive this.
  FewRows(const float* x, int64_t rows, const cpu::Matrix& w);

  /// y[m * ldy + n - begin] = x[m] . w[n] for n in [begin, end); w of the same type and columns.
  void multiply(const cpu::Matrix& w, int64_t begin, int64_t end, float* y, int64_t ldy) const;

 private:
  const float* x_;
  int64_t rows_;
  at::Tensor values_, scales_, offsets_;  // Of Int8Rows, for 4-bit weights.
};

/// y [rows, w.rows] = x [rows, w.columns] times w^T.
void multiply(const float* x, int64_t rows, const cpu::Matrix& w, float* y);

/// Rows of x as multiply_many takes them.
at::Tensor pack(const float* x, int64_t rows, int64_t columns);

/// Scratch memory: `size` floats for each worker of parallel_for.
class Scratch {
 public:
  explicit Scratch(int64_t size);
  float* of(int64_t worker) const;

 private:
  int64_t size_;
  at::Tensor memory_;
};

/// Rows of w that a task takes, so that tasks are neither too short nor too few.
int64_t rows_per_task(const cpu::Matrix& w);

}  // namespace gemma
