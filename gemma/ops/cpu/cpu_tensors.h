#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/FunctionRef.h>

#include <gemma/ops/cpu/kernels.h>
#include <gemma/ops/ops.h>
#include <gemma/ops/pass.h>

// Tensors as the kernels take them, for the files that implement CpuOps.
namespace gemma {

/// x as contiguous float32; x itself if it is that already.
at::Tensor as_rows(const at::Tensor& x);

/// How many rows of its last dimension x has, which may be empty.
int64_t row_count(const at::Tensor& x);

/// x in `dtype`; x itself, without a call of LibTorch's dispatcher, if it has it already.
at::Tensor in_dtype(const at::Tensor& x, at::ScalarType dtype);

/// Uninitialised memory for numbers, in whole cache lines: like a tensor's, but cheaper to get.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size)
      : memory_(static_cast<T*>(::operator new(static_cast<size_t>(size) * sizeof(T), kLine))) {}
  T* get() const { return memory_.get(); }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Delete {
    void operator()(T* memory) const { ::operator delete(memory, kLine); }
  };
  std::unique_ptr<T, Delete> memory_;
};

/// A weight's description, and the tensors that keep its memory alive.
class CpuWeight {
 public:
  explicit CpuWeight(const WeightView& weight);
  CpuWeight(CpuWeight&&) = default;
  const cpu::WeightView& operator*() const { return matrix_; }
  const cpu::WeightView* operator->() const { return &matrix_; }

 private:
  void take_blocks(const BlockLayout& layout);

  at::Tensor data_, scales_;
  std::vector<cpu::BlockRows> blocks_;
  cpu::WeightView matrix_;
};

/// Whether products of so many rows go through gemv, one row at a time as far as its bits go.
bool by_rows(Pass pass, int64_t rows);

/// Rows of activations for gemv, in the form that a type of weight needs.
class GemvInput {
 public:
  /// x [rows, w.columns].
  GemvInput(const float* x, int64_t rows, const cpu::WeightView& w);

  /// y[m * ldy + n - begin] = x[m] . w[n] for n in [begin, end); w of the same type and columns.
  void multiply(const cpu::WeightView& w, int64_t begin, int64_t end, float* y, int64_t ldy) const;

 private:
  int64_t rows_;
  Buffer<std::byte> packed_;
};

/// Rows of activations for gemm, in the form that a type of weight needs.
class GemmInput {
 public:
  /// x [rows, w.columns].
  GemmInput(const float* x, int64_t rows, const cpu::WeightView& w);

  /// Calls work(rows, panel, worker) for all rows with all panels of a weight that has w's rows:
  /// one panel at a time, and only some of the rows where there are few panels.
  void each_task(const cpu::WeightView& w,
                 c10::function_ref<void(const cpu::PackedRows& rows, int64_t panel, int64_t worker)>
                     work) const;

  /// Most rows of a task.
  int64_t task_rows(const cpu::WeightView& w) const;

 private:
  int64_t rows_;
  Buffer<std::byte> packed_;
};

/// y [rows, w.rows] = x [rows, w.columns] times w^T.
void multiply(const float* x, int64_t rows, const cpu::WeightView& w, Pass pass, float* y);

/// x times weight^T, and the bias if it is defined: [..., in] -> float32 [..., out].
at::Tensor biased_product(const at::Tensor& x, const BiasedWeight& linear, Pass pass);

/// What a gated MLP multiplies its input by: two weights of one size.
struct GateAndUp {
  const cpu::WeightView& gate;
  const cpu::WeightView& up;
  const float* gate_bias = nullptr;  // [gate.rows]; none: no bias.
  const float* up_bias = nullptr;    // Likewise.
};

/// act [rows, gate.rows] = gelu_tanh(gate x + bias) * (up x + bias), x [rows, gate.columns].
void multiply_gated(const float* x, int64_t rows, const GateAndUp& weights, Pass pass, float* act);

/// Rows [begin, begin + count) of a weight of floats.
cpu::WeightView rows_of(const cpu::WeightView& w, int64_t begin, int64_t count);

/// parallel_for over rows that take little time each: the caller's thread does a few alone, as
/// waking the others costs more.
void each_row(int64_t rows, c10::function_ref<void(int64_t row, int64_t worker)> body);

/// Scratch memory: `size` floats for each worker of parallel_for.
class Scratch {
 public:
  explicit Scratch(int64_t size);
  float* of(int64_t worker) const { return memory_.get() + worker * size_; }

 private:
  int64_t size_;
  Buffer<float> memory_;
};

/// Rows of w for each task with `rows` rows of activations: tasks shall be neither too short nor
/// too few, and what several groups of rows read shall stay in a core's cache.
int64_t rows_per_task(const cpu::WeightView& w, int64_t rows);

}  // namespace gemma
