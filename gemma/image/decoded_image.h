#pragma once

#include <cstdint>
#include <stdexcept>
#include <vector>

namespace gemma {

/// What is wrong with some bytes, in words that do not name the file: the function that was given
/// the name puts it in front.
struct ImageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A file's pixels as they are stored. Without LibTorch, as it is fuzzed without.
struct DecodedImage {
  int64_t height = 0;
  int64_t width = 0;
  /// [height, width, 3], 8 bits each.
  std::vector<uint8_t> rgb;
  /// Exif's: 1 is upright, 2 to 8 are mirrored or turned.
  int orientation = 1;
};

/// Throws ImageError when a side is 0 or there are more than max_pixels.
void check_size(uint32_t height, uint32_t width, int64_t max_pixels);

/// Throws ImageError when `needed` bytes, the fewest that a file of this picture could have, are
/// more than there are: then it is not worth the memory.
void check_length(uint64_t needed, uint64_t size);

}  // namespace gemma
