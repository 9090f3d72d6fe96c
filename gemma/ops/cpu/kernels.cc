#include <cstdlib>
#include <string_view>

#ifdef __x86_64__
#include <unistd.h>

#include <sys/syscall.h>
#endif

#include <gemma/ops/cpu/kernels.h>

namespace gemma::cpu {
namespace {

#ifdef __x86_64__

bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

// On Linux a process must ask before it uses AMX's registers.
bool has_amx() {
  if (!has_avx512() || !__builtin_cpu_supports("avx512bf16") ||
      !__builtin_cpu_supports("amx-tile") || !__builtin_cpu_supports("amx-bf16")) {
    return false;
  }
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

const Kernels& choose_kernels() {
  const auto* const asked = std::getenv("ATEN_CPU_CAPABILITY");
  const std::string_view capability = asked == nullptr ? "" : asked;
  if (capability == "default" || !has_avx2()) return kPortableKernels;
  if (capability == "avx2" || !has_avx512()) return kAvx2Kernels;
  if (capability == "avx512" || !has_amx()) return kAvx512Kernels;
  return kAmxKernels;
}

#else

const Kernels& choose_kernels() { return kPortableKernels; }

#endif

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose_kernels();
  return chosen;
}

}  // namespace gemma::cpu
