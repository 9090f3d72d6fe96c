#pragma once

#include <gemma/ops/cpu/vector/attention_blocks.h>
#include <gemma/ops/cpu/vector/gemm_loops.h>
#include <gemma/ops/cpu/vector/gemv.h>
#include <gemma/ops/cpu/vector/int4_loops.h>
#include <gemma/ops/cpu/vector/int8_loops.h>
#include <gemma/ops/cpu/vector/probe_loops.h>
#include <gemma/ops/cpu/vector/recurrence_loops.h>
#include <gemma/ops/cpu/vector/row_loops.h>

namespace gemma::cpu {
namespace {

// The kernels as the including file compiles them.
constexpr Kernels make_kernels(const char* name) {
  return {
      .name = name,
      .gemv_mr = kGemvRows,
      .gemv_nr = kGemvNr,
      .gemv_size = gemv_size,
      .gemv_pack = gemv_pack,
      .gemv = gemv,
      .gemm_mr = kGemmMr,
      .packed_size = packed_size,
      .pack = pack,
      .gemm_nr = kGemmNr,
      .gemm_mc = kGemmMc,
      .gemm_scratch = kGemmScratch,
      .gemm = gemm,
      .geglu = geglu,
      .read_row = read_row,
      .rms_norm = rms_norm,
      .rotate = rotate,
      .write_position = write_position,
      .attend_one = attend_one,
      .attend_rows = kBlockRows,
      .attend_mr = kBlockMr,
      .attend_scratch = attend_scratch,
      .attend_block = attend_block,
      .causal_conv = causal_conv,
      .rg_lru = rg_lru,
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
