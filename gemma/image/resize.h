#pragma once

#include <cstdint>

#include <gemma/image/image.h>

namespace gemma {

/// Image.resize((width, height), BILINEAR) of Pillow 13, bit for bit: where the image shrinks, each
/// output pixel is a weighted mean of all that it covers. (Earlier versions of Pillow differ in the
/// last bit where an image is much taller than it is wide: they never began with its columns.)
/// Throws std::invalid_argument when a side is not positive.
Image resize_bilinear(const Image& image, int64_t height, int64_t width);

/// The same with BICUBIC, whose weights are negative at the edges: contours become crisper.
Image resize_bicubic(const Image& image, int64_t height, int64_t width);

}  // namespace gemma
