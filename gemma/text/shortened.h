#pragma once

#include <cstddef>
#include <string_view>

namespace gemma {

/// The beginning of a text in UTF-8, of `most` bytes at most, for a message. No character is cut.
constexpr std::string_view shortened(std::string_view text, size_t most) {
  if (text.size() <= most) return text;
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xc0U) == 0x80U) --most;
  return text.substr(0, most);
}

}  // namespace gemma
