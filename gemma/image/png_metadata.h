#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

namespace gemma {

/// The text of a tEXt, zTXt or iTXt chunk, as stored.
struct PngText {
  std::string_view bytes;
  /// By zlib.
  bool is_compressed = false;
};

/// Where a PNG file can say how it lies: views of the file. Of several of one kind the last counts,
/// as in Pillow.
struct PngMetadata {
  /// An eXIf chunk, or a text named "exif".
  std::optional<std::string_view> exif;
  /// "Raw profile type exif".
  std::optional<PngText> raw_profile;
  /// "XML:com.adobe.xmp".
  PngText xmp;
};

/// Reads the chunks of a file that begins as PNG files do, up to the first that is cut off.
/// Checksums are not verified: libpng does that for chunks that the pixels need.
PngMetadata png_metadata(std::span<const std::byte> file);

}  // namespace gemma
