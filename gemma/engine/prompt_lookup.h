#pragma once

#include <cstdint>
#include <span>

namespace gemma {

/// A guess at what follows a text: the tokens that followed its last three, or its last two, where
/// they stood last before; at most `most` of them. Empty where they did not stand before.
std::span<const int64_t> prompt_lookup(std::span<const int64_t> tokens, int64_t most);

}  // namespace gemma
