#pragma once

#include <cstddef>
#include <string_view>

namespace gemma {

/// RFC 3629: the shortest form, no surrogates, nothing past U+10FFFF; in short, what Python
/// decodes. With surrogates, what Python decodes as "surrogatepass".
constexpr bool is_utf8(std::string_view text, bool with_surrogates = false) {
  for (size_t i = 0; i < text.size();) {
    const auto byte = [&](size_t at) { return static_cast<unsigned char>(text[at]); };
    const unsigned lead = byte(i);
    const size_t length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (length == 0 || lead > 0xf4 || length > text.size() - i) return false;
    for (size_t k = 1; k < length; ++k) {
      if ((byte(i + k) & 0xc0) != 0x80) return false;
    }
    if (lead == 0xe0 && byte(i + 1) < 0xa0) return false;  // Longer than needed.
    if (lead == 0xed && byte(i + 1) > 0x9f && !with_surrogates) return false;
    if (lead == 0xf0 && byte(i + 1) < 0x90) return false;  // Longer than needed.
    if (lead == 0xf4 && byte(i + 1) > 0x8f) return false;  // Past U+10FFFF.
    i += length;
  }
  return true;
}

}  // namespace gemma
