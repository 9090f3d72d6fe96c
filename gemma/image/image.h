#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include <ATen/core/Tensor.h>

namespace gemma {

/// The most pixels that a file may say it has: PIL's limit, where it raises DecompressionBombError.
/// Decoded they take 3 bytes each, some 512 MiB.
inline constexpr int64_t kMaxImagePixels = int64_t{2} * (int64_t{1024} * 1024 * 1024 / 4 / 3);

/// The largest file that is read.
inline constexpr uint64_t kMaxImageBytes = uint64_t{512} << 20;

/// A picture in 8-bit RGB; what PIL's Image of mode "RGB" is to the reference. Copies share pixels,
/// and nobody changes them.
class Image {
 public:
  /// Takes uint8 [height, width, 3] in the CPU's memory, and copies it only if it is not
  /// contiguous. Throws std::invalid_argument for another dtype, shape or device, or an empty side.
  explicit Image(at::Tensor pixels);

  /// Copies rows from top to bottom, pixels from left to right, of 3 bytes R G B each. Throws
  /// std::invalid_argument when a side is not positive or there are not height * width * 3 bytes.
  Image(std::span<const std::byte> rgb, int64_t height, int64_t width);

  /// uint8 [height, width, 3], contiguous, on the CPU.
  const at::Tensor& pixels() const { return pixels_; }
  int64_t height() const { return pixels_.size(0); }
  int64_t width() const { return pixels_.size(1); }

 private:
  at::Tensor pixels_;
};

/// A JPEG or PNG file, told apart by its first bytes, with the colours that PIL's
/// Image.open(path).convert("RGB") gives. Throws FileNotFound when nothing is there, and
/// std::runtime_error, naming the file, when it is neither format, damaged, truncated, or has more
/// than max_pixels; of these nothing is decoded.
// Differs from gemma3_preprocessor.py: turned upright as Exif or XMP says, as
// ImageOps.exif_transpose does; PIL's open() leaves the picture as the camera held it.
Image read_image(const std::filesystem::path& path, int64_t max_pixels = kMaxImagePixels);

/// The same for a file's bytes; `name` stands in messages.
Image decode_image(std::span<const std::byte> bytes,
                   const std::string& name,
                   int64_t max_pixels = kMaxImagePixels);

}  // namespace gemma
