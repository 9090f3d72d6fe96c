#pragma once

#include <gemma/ops/cpu/vector/block_loops.h>
#include <gemma/ops/cpu/vector/gemv_loops.h>
#include <gemma/ops/cpu/vector/int4_loops.h>
#include <gemma/ops/cpu/vector/int8_loops.h>

// Products of few rows of activations with weights, by vectors. AMX has its own for weights of
// bfloat16 (amx/gemv.h).
namespace gemma::cpu {
namespace {

static_assert(kGemvRows % kRowsAtOnce == 0);
// 3, 4 or 6 rows are taken together, and the remaining ones one by one.
constexpr int64_t kGemvNr = 12;

// Where the arrays of packed rows are, for weights of a type that is no float: integers, scales,
// and what sums begin with or are corrected by. `scales` and `offsets` are numbers of a row, of 4
// bytes; places are in bytes.
struct PackedIntegers {
  PackedIntegers(int64_t rows, int64_t columns, WeightType type) {
    auto bytes = columns * 2;
    switch (type) {
      case WeightType::kInt4:
        bytes = int8_columns(columns);
        scales = offsets = int8_lanes(columns);
        break;
      case WeightType::kBlocks:
        scales = ChunkedRows::chunks(columns);
        offsets = ChunkedRows::group_sums(columns);
        break;
      default:
        scales = packed_blocks(columns);
    }
    scales_at = round_up(rows * bytes, kLine);
    offsets_at = scales_at + round_up(rows * scales * 4, kLine);
    size = offsets_at + rows * offsets * 4;
  }

  int64_t scales = 0, offsets = 0;
  int64_t scales_at, offsets_at, size;

 private:
  static constexpr int64_t kLine = 64;
};

// Packed rows of activations for weights in blocks.
inline ChunkedRows chunked_rows(const std::byte* packed, const PackedIntegers& layout) {
  return {reinterpret_cast<const int16_t*>(packed),
          reinterpret_cast<const float*>(packed + layout.scales_at),
          reinterpret_cast<const float*>(packed + layout.offsets_at)};
}

int64_t gemv_size(int64_t rows, int64_t columns, WeightType type) {
  if (is_float(type)) {
    return rows * round_up(columns, kLanes) * static_cast<int64_t>(sizeof(float));
  }
  return PackedIntegers(rows, columns, type).size;
}

void gemv_pack(const float* x,
               int64_t rows,
               int64_t columns,
               int64_t group,
               WeightType type,
               std::byte* packed) {
  const auto begin = group * kGemvRows;
  const auto end = rows - begin < kGemvRows ? rows : begin + kGemvRows;
  if (is_float(type)) {
    return pack_gemv_floats(x, begin, end, columns, type == WeightType::kBFloat16,
                            reinterpret_cast<float*>(packed));
  }
  const PackedIntegers layout(rows, columns, type);
  auto* const scales = reinterpret_cast<float*>(packed + layout.scales_at);
  auto* const offsets = packed + layout.offsets_at;
  for (auto r = begin; r < end; ++r) {
    const auto* const row = x + r * columns;
    auto* const wide = reinterpret_cast<int16_t*>(packed) + r * columns;
    auto* const row_scales = scales + r * layout.scales;
    if (type == WeightType::kInt8) {
      quantize_int16(row, columns, wide, row_scales);
    } else if (type == WeightType::kBlocks) {
      quantize_chunks(row, columns, wide, row_scales,
                      reinterpret_cast<float*>(offsets) + r * layout.offsets);
    } else {
      quantize_int8(row, columns, reinterpret_cast<int8_t*>(packed) + r * int8_columns(columns),
                    row_scales, reinterpret_cast<int32_t*>(offsets) + r * layout.offsets);
    }
  }
}

void gemv(const std::byte* x,
          int64_t rows,
          const WeightView& w,
          int64_t begin,
          int64_t end,
          float* y,
          int64_t ldy) {
  if (is_float(w.type)) {
    return gemv_floats(reinterpret_cast<const float*>(x), rows, w, begin, end, y, ldy);
  }
  const PackedIntegers layout(rows, w.columns, w.type);
  const auto* const scales = reinterpret_cast<const float*>(x + layout.scales_at);
  // All groups of rows with some of the weights, so that these are read from memory once.
  for (int64_t first = 0; first < rows; first += kGemvRows, y += kGemvRows * ldy) {
    const auto count = rows - first < kGemvRows ? rows - first : kGemvRows;
    if (w.type == WeightType::kBlocks) {
      gemv_blocks(chunked_rows(x, layout).from(first, w.columns), count, w, begin, end, y, ldy);
    } else if (w.type == WeightType::kInt8) {
      gemv_int8(
          {reinterpret_cast<const int16_t*>(x) + first * w.columns, scales + first * layout.scales},
          count, w, begin, end, y, ldy);
    } else {
      const auto* const offsets = reinterpret_cast<const int32_t*>(x + layout.offsets_at);
      gemv_int4({reinterpret_cast<const int8_t*>(x) + first * int8_columns(w.columns),
                 scales + first * layout.scales, offsets + first * layout.scales},
                count, w, begin, end, y, ldy);
    }
  }
}

}  // namespace
}  // namespace gemma::cpu
