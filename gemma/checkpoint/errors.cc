#include <iterator>

#include <fmt/format.h>

#include <gemma/checkpoint/errors.h>

namespace gemma {

std::string about_file(std::string_view path, std::string_view what) {
  return fmt::format("{}: {}", path, what);
}

void refuse_file(std::string_view path, std::string_view what) {
  throw std::runtime_error(about_file(path, what));
}

void refuse_tensor(std::string_view path, std::string_view name, std::string_view what) {
  throw std::invalid_argument(
      about_file(path, fmt::format("tensor '{}' {}", printable(name), what)));
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
