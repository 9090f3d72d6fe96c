#include <algorithm>
#include <array>
#include <stdexcept>

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <gemma/image/resize.h>
#include <gemma/vision/preprocessor.h>

namespace gemma {
namespace {

// A byte has few values, so that the reference's arithmetic is done once for each.
constexpr std::array<float, 256> normalized_bytes() {
  constexpr float kMean = 0.5F;
  constexpr float kStd = 0.5F;
  std::array<float, 256> values{};
  for (size_t byte = 0; byte < values.size(); ++byte) {
    const float share = static_cast<float>(byte) / 255.0F;
    values[byte] = std::clamp((share - kMean) / kStd, -1.0F, 1.0F);
  }
  return values;
}

constexpr std::array<float, 256> kNormalized = normalized_bytes();

}  // namespace

at::Tensor pixel_values(const Image& image, const std::array<float, 256>& values) {
  at::Tensor pixels = at::empty(image.pixels().sizes(), at::kFloat);
  const auto* const bytes = image.pixels().const_data_ptr<uint8_t>();
  std::transform(bytes, bytes + pixels.numel(), pixels.mutable_data_ptr<float>(),
                 [&](uint8_t byte) { return values[byte]; });
  return pixels.permute({2, 0, 1});
}

std::vector<at::Tensor> preprocess_images_for_siglip_vision(std::span<const Image> images,
                                                            int64_t image_size) {
  if (image_size < 1) {
    throw std::invalid_argument(
        fmt::format("preprocess_images_for_siglip_vision: image_size is {}, but must be at least 1 "
                    "pixel",
                    image_size));
  }
  std::vector<at::Tensor> processed;
  processed.reserve(images.size());
  for (const Image& image : images) {
    processed.push_back(pixel_values(resize_bilinear(image, image_size, image_size), kNormalized));
  }
  return processed;
}

}  // namespace gemma
