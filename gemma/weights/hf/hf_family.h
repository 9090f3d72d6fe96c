#pragma once

#include <string_view>

#include <gemma/config/config.h>

namespace gemma {

/// What transformers calls a family, and what it assumes of it.
struct HfFamily {
  std::string_view model_type;
  std::string_view architecture;  ///< The class.
  GemmaConfig defaults;           ///< Of that class.
  /// The generation whose fields its config.json has.
  Architecture fields;
};

HfFamily hf_family(Architecture architecture);

/// VaultGemma: the network is Gemma 1's, what says its sizes Gemma 2's.
HfFamily hf_vaultgemma();

/// The base of the rotary embedding of Gemma 1 and 2, and of Gemma 3's local layers.
inline constexpr int64_t kHfLocalTheta = 10'000;
/// And of its global ones.
inline constexpr int64_t kHfGlobalTheta = 1'000'000;

inline constexpr std::string_view kHfLocalLayer = "sliding_attention";
inline constexpr std::string_view kHfGlobalLayer = "full_attention";

}  // namespace gemma
