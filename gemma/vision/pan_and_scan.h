#pragma once

#include <cstdint>
#include <vector>

#include <gemma/image/image.h>

namespace gemma {

/// Where a crop lies in its image, in pixels; a bottom or right edge may lie outside.
struct CropPosition {
  int64_t top;
  int64_t left;
  int64_t bottom;
  int64_t right;

  bool operator==(const CropPosition&) const = default;
};

struct Crops {
  std::vector<Image> images;
  std::vector<CropPosition> positions;
};

/// siglip_vision/pan_and_scan.py: pan_and_scan_os_with_crop_positions. An image at least half again
/// as long as it is wide is cut along its longer side into 2 to max_num_crops crops of equal size,
/// so that they are nearly square and at least min_crop_size pixels long where 2 are; the last is
/// black where it passes the edge. Any other image, or one whose crops would be smaller than
/// min_crop_size, is its own only crop.
/// Throws std::invalid_argument when min_crop_size or max_num_crops is not positive.
Crops pan_and_scan_os_with_crop_positions(const Image& img,
                                          int64_t min_crop_size = 256,
                                          int64_t max_num_crops = 4);

/// siglip_vision/pan_and_scan.py: pan_and_scan. The crops of the above.
std::vector<Image> pan_and_scan(const Image& img,
                                int64_t min_crop_size = 256,
                                int64_t max_num_crops = 4);

}  // namespace gemma
