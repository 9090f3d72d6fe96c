// Compiled for whatever the compiler's default is.
#include <gemma/ops/cpu/kernel_table.h>

namespace gemma::cpu {

const Kernels kPortableKernels = make_kernels("portable");

}  // namespace gemma::cpu
