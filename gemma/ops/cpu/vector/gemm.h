#pragma once

#include <gemma/ops/cpu/vector/gemm_loops.h>
#include <gemma/ops/cpu/vector/int8_loops.h>

// Products of many rows of activations with weights, by vectors: of floats as floats, of integers
// as integers. What stands in the blocks of a GGUF is read as floats.
namespace gemma::cpu {
namespace {

constexpr int64_t kGemmMr = kMr;
constexpr int64_t kGemmNr = kNr;
constexpr int64_t kGemmMc = int64_t{1} << 40;  // As many as there are.
constexpr int64_t kGemmScratch = 2 * kNr * kKc;

constexpr bool multiplies_integers(WeightType type) {
  return type == WeightType::kInt8 || type == WeightType::kInt4;
}

int64_t packed_size(int64_t rows, int64_t columns, WeightType type) {
  if (multiplies_integers(type)) return PackedInt16(rows, columns).size;
  return round_up(rows, kMr) * columns * static_cast<int64_t>(sizeof(float));
}

void pack(const float* x,
          int64_t rows,
          int64_t columns,
          int64_t group,
          WeightType type,
          std::byte* packed) {
  if (multiplies_integers(type)) return pack_int16(x, rows, columns, group, type, packed);
  pack_floats(x, rows, columns, group, reinterpret_cast<float*>(packed));
}

void gemm(const PackedRows& x,
          const WeightView& w,
          int64_t panel,
          float* y,
          int64_t ldy,
          float* scratch) {
  if (multiplies_integers(w.type)) return gemm_int16(x, w, panel, y, ldy, scratch);
  gemm_floats(x, w, panel, y, ldy, scratch);
}

}  // namespace
}  // namespace gemma::cpu
