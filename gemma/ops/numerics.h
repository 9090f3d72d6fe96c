#pragma once

#include <string_view>

namespace gemma {

/// kExact: the reference's results, bit for bit. kFast: float32 arithmetic in fused kernels.
enum class Numerics { kExact, kFast };

/// "exact" or "fast"; anything else throws std::invalid_argument.
Numerics numerics_from_string(std::string_view name);
std::string_view to_string(Numerics numerics);

}  // namespace gemma
