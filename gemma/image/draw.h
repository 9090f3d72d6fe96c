#pragma once

#include <cstdint>
#include <span>

#include <gemma/image/image.h>

namespace gemma {

/// A rectangle of pixels, without its right column and bottom row.
struct Frame {
  int64_t left, top, right, bottom;
};

/// The picture with a line inside the edge of each frame, in colours that take turns. What lies
/// outside the picture is not drawn.
Image with_frames(const Image& image, std::span<const Frame> frames);

}  // namespace gemma
