// Compiled for AVX-512 F, BW, DQ, VL and VNNI (gemma/CMakeLists.txt).
#include <gemma/ops/cpu/kernel_table.h>

namespace gemma::cpu {

const Kernels kAvx512Kernels = make_kernels("AVX-512");

}  // namespace gemma::cpu
