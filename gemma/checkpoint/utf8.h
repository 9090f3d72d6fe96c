#pragma once

#include <cstddef>
#include <string_view>

namespace gemma {

/// How many bytes at the beginning of `text` are UTF-8 by RFC 3629: the shortest form, no
/// surrogates, nothing past U+10FFFF; in short, what Python decodes. With surrogates, what Python
/// decodes as "surrogatepass".
constexpr size_t utf8_prefix(std::string_view text, bool with_surrogates = false) {
  size_t i = 0;
  while (i < text.size()) {
    const auto byte = [&](size_t at) { return static_cast<unsigned char>(text[at]); };
    const unsigned lead = byte(i);
    const size_t length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (length == 0 || lead > 0xf4 || length > text.size() - i) return i;
    for (size_t k = 1; k < length; ++k) {
      if ((byte(i + k) & 0xc0) != 0x80) return i;
    }
    if (lead == 0xe0 && byte(i + 1) < 0xa0) return i;  // Longer than needed.
    if (lead == 0xed && byte(i + 1) > 0x9f && !with_surrogates) return i;
    if (lead == 0xf0 && byte(i + 1) < 0x90) return i;  // Longer than needed.
    if (lead == 0xf4 && byte(i + 1) > 0x8f) return i;  // Past U+10FFFF.
    i += length;
  }
  return i;
}

constexpr bool is_utf8(std::string_view text, bool with_surrogates = false) {
  return utf8_prefix(text, with_surrogates) == text.size();
}

}  // namespace gemma
