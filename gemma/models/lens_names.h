#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <gemma/config/config.h>

namespace gemma {

/// The names that TransformerLens has for the points of a GemmaModel.
class LensNames {
 public:
  explicit LensNames(const GemmaConfig& config);

  /// Of a point by its path in the GemmaModel ("layers.3.self_attn.hook_pattern"): first that of
  /// HookedTransformer, if it has one, then that of TransformerBridge, if it is another. Empty for
  /// a point that it does not know.
  std::vector<std::string> of(std::string_view path) const;

 private:
  std::map<std::string, std::vector<std::string>, std::less<>> of_layer_;
};

}  // namespace gemma
