#include <algorithm>
#include <cstdint>

#include <gemma/image/png_metadata.h>

namespace gemma {
namespace {

constexpr size_t kSignatureSize = 8;
constexpr size_t kFrameSize = 12;  // Length and type before the data, a checksum after it.

uint32_t big_endian(std::string_view bytes) {
  uint32_t value = 0;
  for (const char c : bytes.substr(0, 4)) value = value << 8 | static_cast<uint8_t>(c);
  return value;
}

// What stands before the next zero byte, which goes too; all of it if there is none.
std::string_view take_word(std::string_view& rest) {
  const size_t end = rest.find('\0');
  const auto word = rest.substr(0, end);
  rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
  return word;
}

// zTXt, after its keyword: the method, of which there is one, 0, then the text.
std::optional<PngText> compressed_text(std::string_view rest) {
  if (rest.empty() || rest.front() != '\0') return std::nullopt;
  return PngText{.bytes = rest.substr(1), .is_compressed = true};
}

// iTXt, after its keyword: whether compressed, the method, a language, the keyword's translation.
std::optional<PngText> international_text(std::string_view rest) {
  if (rest.size() < 2) return std::nullopt;
  const bool is_compressed = rest[0] != '\0';
  if (is_compressed && rest[1] != '\0') return std::nullopt;
  rest.remove_prefix(2);
  take_word(rest);
  take_word(rest);
  return PngText{.bytes = rest, .is_compressed = is_compressed};
}

std::optional<PngText> text_of(std::string_view type, std::string_view rest) {
  if (type == "tEXt") return PngText{.bytes = rest};
  if (type == "zTXt") return compressed_text(rest);
  if (type == "iTXt") return international_text(rest);
  return std::nullopt;
}

void take_chunk(std::string_view type, std::string_view data, PngMetadata& metadata) {
  if (type == "eXIf") {
    metadata.exif = data;
    return;
  }
  const auto keyword = take_word(data);
  const auto text = text_of(type, data);
  if (!text) return;
  if (keyword == "exif" && type == "tEXt") metadata.exif = text->bytes;
  if (keyword == "Raw profile type exif") metadata.raw_profile = text;
  if (keyword == "XML:com.adobe.xmp") metadata.xmp = *text;
}

}  // namespace

PngMetadata png_metadata(std::span<const std::byte> file) {
  PngMetadata metadata;
  std::string_view rest(reinterpret_cast<const char*>(file.data()), file.size());
  rest.remove_prefix(std::min(rest.size(), kSignatureSize));
  while (rest.size() >= kFrameSize && rest.size() - kFrameSize >= big_endian(rest)) {
    const size_t size = big_endian(rest);
    take_chunk(rest.substr(4, 4), rest.substr(8, size), metadata);
    rest.remove_prefix(size + kFrameSize);
  }
  return metadata;
}

}  // namespace gemma
