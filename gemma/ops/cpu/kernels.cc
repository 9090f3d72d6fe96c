#include <cstdlib>
#include <string_view>

#include <gemma/ops/cpu/kernels.h>

namespace gemma::cpu {
namespace {

bool has_avx2() {
#ifdef __x86_64__
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}

const Kernels& choose_kernels() {
#ifdef __x86_64__
  const auto* const capability = std::getenv("ATEN_CPU_CAPABILITY");
  const bool portable = capability != nullptr && std::string_view(capability) == "default";
  if (has_avx2() && !portable) return kAvx2Kernels;
#endif
  return kPortableKernels;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose_kernels();
  return chosen;
}

}  // namespace gemma::cpu
