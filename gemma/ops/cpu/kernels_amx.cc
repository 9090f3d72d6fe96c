// Compiled for AVX-512 F, BW, DQ, VL, VNNI and BF16, and AMX (gemma/CMakeLists.txt).
#include <gemma/ops/cpu/amx/gemv.h>
#include <gemma/ops/cpu/kernel_table.h>

namespace gemma::cpu {
namespace {

constexpr Kernels make_amx_kernels() {
  auto kernels = make_kernels("AMX");
  kernels.gemv_mr = kTilesMr;
  kernels.gemv_nr = kAmxSide;
  kernels.gemv_size = tiles_gemv_size;
  kernels.gemv_pack = tiles_gemv_pack;
  kernels.gemv = tiles_gemv;
  return kernels;
}

}  // namespace

const Kernels kAmxKernels = make_amx_kernels();

}  // namespace gemma::cpu
