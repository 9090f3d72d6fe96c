#include <stdexcept>

#include <fmt/format.h>

#include <gemma/ops/cpu/cpu_ops.h>

namespace gemma {

Numerics numerics_from_string(std::string_view name) {
  if (name == "exact") return Numerics::kExact;
  if (name == "fast") return Numerics::kFast;
  throw std::invalid_argument(
      fmt::format("numerics '{}' is unknown; valid numerics: exact, fast", name));
}

std::string_view to_string(Numerics numerics) {
  return numerics == Numerics::kExact ? "exact" : "fast";
}

const Ops& ops_for(Numerics numerics, c10::Device device) {
  static const Ops reference;
  static const CpuOps cpu;
  if (numerics == Numerics::kExact) return reference;
  if (device.is_cpu()) return cpu;
  throw std::invalid_argument(fmt::format(
      "numerics fast compute on the CPU only, not on {}; use numerics exact", device.str()));
}

}  // namespace gemma
