// Compiled for AVX-512 F, BW, DQ, VL, VNNI and BF16, and AMX (gemma/CMakeLists.txt).
#include <gemma/ops/cpu/kernel_table.h>

namespace gemma::cpu {

const Kernels kAmxKernels = make_kernels("AMX");

}  // namespace gemma::cpu
