#pragma once

#include <optional>

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/weights/layout.h>

namespace gemma {

/// The layout of big_vision's PaliGemma 1 and 2, files of numpy.savez: "img/" and "llm/", with or
/// without "params/" before them. None for other names. Throws std::runtime_error, naming the file
/// and the tensor, where one is missing or has another number of dimensions.
///
/// There the layers of a network are one tensor, a product's weight is [in, out], and attention's
/// heads are a dimension of their own.
std::optional<Layout> big_vision_layout(const Checkpoint& checkpoint);

}  // namespace gemma
