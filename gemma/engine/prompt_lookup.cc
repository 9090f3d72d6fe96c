#include <algorithm>

#include <gemma/engine/prompt_lookup.h>

namespace gemma {
namespace {

// What followed the last `count` tokens where they stood last before.
std::span<const int64_t> after_last(std::span<const int64_t> tokens, size_t count) {
  if (tokens.size() <= count) return {};
  const auto last = tokens.last(count);
  for (auto begin = tokens.size() - count; begin-- > 0;) {
    const auto here = tokens.subspan(begin, count);
    if (std::ranges::equal(here, last)) return tokens.subspan(begin + count);
  }
  return {};
}

}  // namespace

std::span<const int64_t> prompt_lookup(std::span<const int64_t> tokens, int64_t most) {
  if (most < 1) return {};
  for (const size_t count : {3, 2}) {
    const auto found = after_last(tokens, count);
    if (!found.empty()) return found.first(std::min(found.size(), static_cast<size_t>(most)));
  }
  return {};
}

}  // namespace gemma
