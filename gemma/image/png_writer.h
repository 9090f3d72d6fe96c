#pragma once

#include <cstddef>
#include <vector>

#include <gemma/image/image.h>

namespace gemma {

/// The bytes of a PNG file of the picture, 8 bits a colour. Throws std::runtime_error when libpng
/// has no memory for it.
std::vector<std::byte> encode_png(const Image& image);

}  // namespace gemma
