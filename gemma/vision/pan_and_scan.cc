#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <gemma/vision/pan_and_scan.h>

namespace gemma {
namespace {

double ratio(int64_t a, int64_t b) { return static_cast<double>(a) / static_cast<double>(b); }

void check(int64_t min_crop_size, int64_t max_num_crops) {
  if (min_crop_size < 1 || max_num_crops < 1) {
    throw std::invalid_argument(fmt::format(
        "pan_and_scan: min_crop_size is {} and max_num_crops is {}, but both must be at least 1",
        min_crop_size, max_num_crops));
  }
}

// Of an image `longer` by `shorter` pixels.
int64_t number_of_crops(int64_t longer,
                        int64_t shorter,
                        int64_t min_crop_size,
                        int64_t max_num_crops) {
  constexpr double kMinRatio = 1.5;
  if (ratio(longer, shorter) < kMinRatio) return 1;
  const auto wanted = static_cast<int64_t>(std::floor(ratio(longer, shorter) + 0.5));
  const int64_t crops = std::min(longer / min_crop_size, wanted);
  return std::min(std::max<int64_t>(crops, 2), max_num_crops);
}

Image crop(const Image& image, const CropPosition& position) {
  const int64_t height = position.bottom - position.top;
  const int64_t width = position.right - position.left;
  const int64_t inside_height = std::min(height, image.height() - position.top);
  const int64_t inside_width = std::min(width, image.width() - position.left);
  at::Tensor pixels = at::zeros({height, width, 3}, at::kByte);
  if (inside_height > 0 && inside_width > 0) {
    pixels.narrow(0, 0, inside_height)
        .narrow(1, 0, inside_width)
        .copy_(image.pixels()
                   .narrow(0, position.top, inside_height)
                   .narrow(1, position.left, inside_width));
  }
  return Image(std::move(pixels));
}

}  // namespace

Crops pan_and_scan_os_with_crop_positions(const Image& img,
                                          int64_t min_crop_size,
                                          int64_t max_num_crops) {
  check(min_crop_size, max_num_crops);
  const int64_t height = img.height();
  const int64_t width = img.width();
  const bool is_wide = width >= height;
  const int64_t longer = std::max(width, height);
  const int64_t shorter = std::min(width, height);
  const int64_t count = number_of_crops(longer, shorter, min_crop_size, max_num_crops);
  const int64_t size = (longer + count - 1) / count;
  if (count == 1 || std::min(size, shorter) < min_crop_size) {
    return {{img}, {{.top = 0, .left = 0, .bottom = height, .right = width}}};
  }
  Crops crops;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = size * i;
    const int64_t end = begin + size;
    crops.positions.push_back(
        is_wide ? CropPosition{.top = 0, .left = begin, .bottom = height, .right = end}
                : CropPosition{.top = begin, .left = 0, .bottom = end, .right = width});
    crops.images.push_back(crop(img, crops.positions.back()));
  }
  return crops;
}

std::vector<Image> pan_and_scan(const Image& img, int64_t min_crop_size, int64_t max_num_crops) {
  return pan_and_scan_os_with_crop_positions(img, min_crop_size, max_num_crops).images;
}

}  // namespace gemma
