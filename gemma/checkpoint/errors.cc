#include <iterator>

#include <fmt/format.h>

#include <gemma/checkpoint/errors.h>

namespace gemma {

std::string about_file(std::string_view path, std::string_view what) {
  return fmt::format("load_weights: {}: {}", path, what);
}

std::string printable(std::string_view text, size_t limit) {
  std::string shown;
  for (const char c : text.substr(0, limit)) {
    if (c == '\\') {
      shown += "\\\\";
    } else if (c >= 0x20 && c < 0x7f) {
      shown += c;
    } else {
      fmt::format_to(std::back_inserter(shown), "\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return text.size() > limit ? shown + "..." : shown;
}

}  // namespace gemma
