#pragma once

#include <gemma/ops/cpu/vector/attention_tiles.h>
#include <gemma/ops/cpu/vector/int4_loops.h>
#include <gemma/ops/cpu/vector/int8_loops.h>
#include <gemma/ops/cpu/vector/matmul_loops.h>
#include <gemma/ops/cpu/vector/probe_loops.h>
#include <gemma/ops/cpu/vector/row_loops.h>

namespace gemma::cpu {
namespace {

// The kernels as the including file compiles them.
constexpr Kernels make_kernels(const char* name) {
  return {
      .name = name,
      .split_pairs = split_pairs,
      .multiply_few = multiply_few,
      .quantize_int16 = quantize_int16,
      .multiply_int8 = multiply_int8,
      .quantize_int8 = quantize_int8,
      .multiply_int4 = multiply_int4,
      .packed_rows = kManyRows,
      .packed_size = packed_size,
      .pack = pack,
      .panel_rows = kManyPanelRows,
      .block_rows = kBlockRows,
      .panel_scratch = kPanelScratch,
      .multiply_many = multiply_many,
      .geglu = geglu,
      .read_row = read_row,
      .rms_norm = rms_norm,
      .rotate = rotate,
      .write_slot = write_slot,
      .attend_one = attend_one,
      .tile_rows = kTileRows,
      .tile_group = kTileGroup,
      .tile_scratch = tile_scratch,
      .attend_tile = attend_tile,
      .finish_logits = finish_logits,
      .argmax = argmax,
      .sum_exp = sum_exp,
      .twist = twist,
      .read_memory = read_memory,
      .multiply_registers = multiply_registers,
      .probe_flops = int64_t{2} * kProbeSums * kLanes,
  };
}

}  // namespace
}  // namespace gemma::cpu
