#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <gemma/image/decoded_image.h>

namespace gemma {

/// Whether the bytes begin as a JPEG file does.
bool is_jpeg(std::span<const std::byte> bytes);

/// Grey, colour, and CMYK as Adobe's programs write it. Throws ImageError.
DecodedImage decode_jpeg(std::span<const std::byte> bytes, int64_t max_pixels);

}  // namespace gemma
