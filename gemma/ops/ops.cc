#include <stdexcept>

#include <fmt/format.h>

#include <gemma/ops/cpu/cpu_ops.h>
#include <gemma/ops/reference_ops.h>

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

const Ops& ops_for(Numerics numerics) {
  static const ReferenceOps reference;
  static const CpuOps fast;
  return numerics == Numerics::kExact ? static_cast<const Ops&>(reference) : fast;
}

}  // namespace gemma
