#include <array>

#include <gemma/image/resize.h>
#include <gemma/vision/paligemma_preprocessor.h>
#include <gemma/vision/preprocessor.h>

namespace gemma {
namespace {

constexpr std::array<float, 256> spread_bytes() {
  std::array<float, 256> values{};
  for (size_t byte = 0; byte < values.size(); ++byte) {
    values[byte] = static_cast<float>(byte) / 127.5F - 1.0F;
  }
  return values;
}

constexpr std::array<float, 256> kSpread = spread_bytes();

}  // namespace

at::Tensor paligemma_pixel_values(const Image& image, int64_t image_size) {
  return pixel_values(resize_bicubic(image, image_size, image_size), kSpread);
}

}  // namespace gemma
