#pragma once

#include <cstdint>

/// What the machine can do at most, measured on the threads that the model uses. Each probe takes
/// about a tenth of a second.
namespace gemma::cli {

/// Bytes a second that are read from memory, far more of it than the caches hold.
double stream_rate();

/// float32 operations a second, of multiplications with additions in registers.
double fma_rate();

/// float32 operations a second of LibTorch's matrix product, for `rows` rows through a layer's gate
/// and down projections.
double sgemm_rate(int64_t rows, int64_t hidden_size, int64_t intermediate_size);

}  // namespace gemma::cli
