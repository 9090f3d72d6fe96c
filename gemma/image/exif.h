#pragma once

#include <cstddef>
#include <span>

namespace gemma {

/// The orientation that EXIF data holds, 1 to 8; 1 when it holds none, or is damaged: a picture is
/// not lost for its metadata. `exif` may begin with "Exif\0\0", as in JPEG files, or without.
int exif_orientation(std::span<const std::byte> exif);

}  // namespace gemma
