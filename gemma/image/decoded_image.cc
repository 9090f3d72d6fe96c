#include <fmt/format.h>

#include <gemma/image/decoded_image.h>

namespace gemma {

void check_size(uint32_t height, uint32_t width, int64_t max_pixels) {
  if (height == 0 || width == 0) {
    throw ImageError(fmt::format("is damaged: it has {} x {} pixels", width, height));
  }
  const uint64_t pixels = uint64_t{height} * width;
  if (pixels > static_cast<uint64_t>(max_pixels)) {
    throw ImageError(fmt::format("has {} x {} pixels, but at most {} are read; make it smaller",
                                 width, height, max_pixels));
  }
}

void check_length(uint64_t needed, uint64_t size) {
  if (size < needed) {
    throw ImageError(fmt::format("is truncated: it has {} bytes, and its pixels take at least {}",
                                 size, needed));
  }
}

}  // namespace gemma
