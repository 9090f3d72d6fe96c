// Compiled for AVX2, FMA and F16C (gemma/CMakeLists.txt), and with PREFETCHW, which processors
// without it ignore.
#include <gemma/ops/cpu/kernel_table.h>

namespace gemma::cpu {

const Kernels kAvx2Kernels = make_kernels("AVX2");

}  // namespace gemma::cpu
