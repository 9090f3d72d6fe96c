#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <gemma/image/decoded_image.h>

namespace gemma {

/// Whether the bytes begin as a PNG file does.
bool is_png(std::span<const std::byte> bytes);

/// All colour types and depths; what is transparent gets the colour that it is stored with. Of 16
/// bits the upper 8 are kept, but grey of 16 bits is cut off at 255: both as in Pillow. Of an
/// animation the first picture. Throws ImageError.
DecodedImage decode_png(std::span<const std::byte> bytes, int64_t max_pixels);

}  // namespace gemma
