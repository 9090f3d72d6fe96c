#include <algorithm>
#include <array>
#include <utility>

#include <gemma/image/draw.h>

namespace gemma {
namespace {

using Colour = std::array<uint8_t, 3>;

constexpr std::array<Colour, 6> kColours = {Colour{230, 30, 30},  Colour{30, 110, 230},
                                            Colour{20, 160, 60},  Colour{240, 150, 0},
                                            Colour{150, 40, 200}, Colour{0, 170, 170}};

// Pixels [left, right) of the rows [top, bottom), as far as they are in the picture.
void fill(at::Tensor& pixels,
          int64_t top,
          int64_t bottom,
          int64_t left,
          int64_t right,
          const Colour& colour) {
  const auto height = pixels.size(0), width = pixels.size(1);
  auto* const data = pixels.mutable_data_ptr<uint8_t>();
  for (auto y = std::max<int64_t>(top, 0); y < std::min(bottom, height); ++y) {
    for (auto x = std::max<int64_t>(left, 0); x < std::min(right, width); ++x) {
      std::ranges::copy(colour, data + (y * width + x) * 3);
    }
  }
}

}  // namespace

Image with_frames(const Image& image, std::span<const Frame> frames) {
  auto pixels = image.pixels().clone();
  const auto thickness = std::max<int64_t>(2, std::min(image.height(), image.width()) / 200);
  for (size_t i = 0; i < frames.size(); ++i) {
    const auto& colour = kColours[i % kColours.size()];
    const auto [left, top, right, bottom] = frames[i];
    fill(pixels, top, std::min(top + thickness, bottom), left, right, colour);
    fill(pixels, std::max(bottom - thickness, top), bottom, left, right, colour);
    fill(pixels, top, bottom, left, std::min(left + thickness, right), colour);
    fill(pixels, top, bottom, std::max(right - thickness, left), right, colour);
  }
  return Image(std::move(pixels));
}

}  // namespace gemma
