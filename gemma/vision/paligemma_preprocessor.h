#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include <gemma/image/image.h>

namespace gemma {

/// What PaliGemma sees of an image: resized to image_size x image_size, whatever its aspect, with
/// [0, 255] spread over [-1, 1] -> float32 [3, image_size, image_size], channels last. Throws
/// std::invalid_argument when image_size is not positive.
// Differs from transformers: big_vision's arithmetic, x / 127.5 - 1, on bytes that are Pillow's
// bicubic ones; transformers' differs from it in the last bit of some.
at::Tensor paligemma_pixel_values(const Image& image, int64_t image_size);

}  // namespace gemma
