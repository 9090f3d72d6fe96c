#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

/// What the machine can do at most, measured on the threads that the model uses. Each measurement
/// takes about a tenth of a second. Memory is kept between them, as some systems are slow to give
/// it.
namespace gemma::cli {

/// Reads memory, far more of it than the caches hold.
class StreamProbe {
 public:
  StreamProbe() = default;
  ~StreamProbe();
  StreamProbe(const StreamProbe&) = delete;
  StreamProbe& operator=(const StreamProbe&) = delete;

  /// Bytes a second.
  double rate();
  /// Memory that it holds.
  int64_t bytes() const;

 private:
  void map();

  int64_t parts_ = 0;  // Of kPart bytes; none before the first measurement.
  char* data_ = nullptr;
};

/// float32 operations a second, of multiplications with additions in registers.
double fma_rate();

/// LibTorch's matrix product, for `rows` rows through a layer's gate and down projections.
class SgemmProbe {
 public:
  SgemmProbe(int64_t rows, int64_t hidden_size, int64_t intermediate_size);

  /// float32 operations a second.
  double rate();

 private:
  at::Tensor hidden_, inner_, gate_, down_;  // [M, E], [M, F], [F, E], [E, F]
  at::Tensor gated_, out_;                   // [M, F], [M, E]
};

}  // namespace gemma::cli
