#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include <gemma/image/image.h>

namespace gemma {

/// siglip_vision/preprocessor.py: DEFAULT_IMAGE_SIZE. Height and width in pixels.
inline constexpr int64_t kDefaultImageSize = 896;

/// siglip_vision/preprocessor.py: preprocess_images_for_siglip_vision. Each image resized to
/// image_size x image_size, whatever its aspect, with [0, 255] spread over [-1, 1]
/// -> float32 [3, image_size, image_size] each, with the reference's strides (channels last).
/// Throws std::invalid_argument when image_size is not positive.
std::vector<at::Tensor> preprocess_images_for_siglip_vision(std::span<const Image> images,
                                                            int64_t image_size = kDefaultImageSize);

/// The image with what `values` has for each of its bytes -> float32 [3, H, W], a view of
/// [H, W, 3]: convolutions choose their algorithm by strides.
at::Tensor pixel_values(const Image& image, const std::array<float, 256>& values);

}  // namespace gemma
