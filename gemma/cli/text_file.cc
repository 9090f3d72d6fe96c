#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>
#include <stdexcept>

#include <fmt/format.h>

#include <gemma/checkpoint/utf8.h>
#include <gemma/cli/text_file.h>

namespace gemma::cli {
namespace {

using namespace std::string_view_literals;

constexpr auto kUtf8Mark = "\xef\xbb\xbf"sv;
constexpr auto kUtf16LittleMark = "\xff\xfe"sv;
constexpr auto kUtf16BigMark = "\xfe\xff"sv;

std::string read_bytes(std::string_view flag, const std::string& path, bool or_input) {
  if (path == "-" && or_input) return {std::istreambuf_iterator<char>(std::cin), {}};
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path)) {
    throw std::runtime_error(fmt::format("{} {}: cannot be read; give a text file{}", flag, path,
                                         or_input ? ", or - for standard input" : ""));
  }
  return {std::istreambuf_iterator<char>(file), {}};
}

void append_utf8(uint32_t character, std::string& text) {
  const auto low_bits = [&](int shift) {
    return static_cast<char>(0x80 | (character >> shift & 0x3f));
  };
  if (character < 0x80) {
    text += static_cast<char>(character);
  } else if (character < 0x800) {
    text += static_cast<char>(0xc0 | character >> 6);
    text += low_bits(0);
  } else if (character < 0x10000) {
    text += static_cast<char>(0xe0 | character >> 12);
    text += {low_bits(6), low_bits(0)};
  } else {
    text += static_cast<char>(0xf0 | character >> 18);
    text += {low_bits(12), low_bits(6), low_bits(0)};
  }
}

// None when a surrogate has no partner, or half a number is left.
std::optional<std::string> from_utf16(std::string_view bytes, bool is_big_endian) {
  if (bytes.size() % 2 != 0) return std::nullopt;
  const auto unit = [&](size_t i) {
    const auto first = static_cast<unsigned char>(bytes[i]);
    const auto second = static_cast<unsigned char>(bytes[i + 1]);
    return is_big_endian ? uint32_t{first} << 8 | second : uint32_t{second} << 8 | first;
  };
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 2) {
    auto character = unit(i);
    if (character >= 0xd800 && character < 0xe000) {
      const auto low = i + 2 < bytes.size() ? unit(i + 2) : 0;
      if (character >= 0xdc00 || low < 0xdc00 || low >= 0xe000) return std::nullopt;
      character = 0x10000 + ((character - 0xd800) << 10) + (low - 0xdc00);
      i += 2;
    }
    append_utf8(character, text);
  }
  return text;
}

std::string without_carriage_returns(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r' || i + 1 == text.size() || text[i + 1] != '\n') result += text[i];
  }
  return result;
}

std::string to_utf8(std::string_view flag, const std::string& path, const std::string& bytes) {
  const auto refuse = [&](const std::string& what) {
    throw std::runtime_error(
        fmt::format("{} {}: {}; save the file as UTF-8 (iconv -t UTF-8)", flag, path, what));
  };
  const std::string_view all = bytes;
  if (all.starts_with(kUtf16LittleMark) || all.starts_with(kUtf16BigMark)) {
    const auto text = from_utf16(all.substr(2), all.starts_with(kUtf16BigMark));
    if (!text) refuse("begins as UTF-16, but is damaged");
    return *text;
  }
  const auto marked = all.starts_with(kUtf8Mark) ? kUtf8Mark.size() : 0;
  const auto text = all.substr(marked);
  if (const auto valid = utf8_prefix(text); valid < text.size()) {
    refuse(fmt::format("is not UTF-8: byte {} is 0x{:02x}", marked + valid,
                       static_cast<unsigned char>(text[valid])));
  }
  // No text has a NUL in it, and UTF-16 without a mark has many.
  if (const auto nul = text.find('\0'); nul != text.npos) {
    refuse(fmt::format("is no text: byte {} is 0", marked + nul));
  }
  return std::string(text);
}

}  // namespace

std::string read_text_file(std::string_view flag, const std::string& path, bool or_input) {
  return without_carriage_returns(to_utf8(flag, path, read_bytes(flag, path, or_input)));
}

const std::string& checked_utf8(std::string_view flag, const std::string& text) {
  if (const auto valid = utf8_prefix(text); valid < text.size()) {
    throw std::invalid_argument(fmt::format("{} is not UTF-8: byte {} is 0x{:02x}", flag, valid,
                                            static_cast<unsigned char>(text[valid])));
  }
  return text;
}

}  // namespace gemma::cli
