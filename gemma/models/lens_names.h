#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <gemma/config/config.h>

namespace gemma {

/// The names that TransformerLens has for a point of a GemmaModel, by its path there
/// ("layers.3.self_attn.hook_pattern"): first that of HookedTransformer, if it has one, then that
/// of TransformerBridge, if it is another. Empty for a point that it does not know.
std::vector<std::string> lens_names(std::string_view path, const GemmaConfig& config);

}  // namespace gemma
