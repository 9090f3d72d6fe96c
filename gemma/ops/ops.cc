#include <stdexcept>

#include <fmt/format.h>

#include <gemma/ops/ops.h>
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
  if (numerics == Numerics::kExact) return reference;
  throw std::invalid_argument(fmt::format(
      "numerics '{}' is not available in this build; available: exact", to_string(numerics)));
}

}  // namespace gemma
