#include <cstdint>
#include <vector>

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "tests/pictures.h"
#include "tests/testing.h"

#include <gemma/image/resize.h>

namespace gemma {
namespace {

using testing::contains;
using testing::grey_image;
using testing::greys_of;
using testing::message_of;
using testing::tensors_equal;
using Greys = std::vector<int>;

std::vector<int> resized(const std::vector<std::vector<uint8_t>>& rows,
                         int64_t height,
                         int64_t width) {
  return greys_of(resize_bilinear(grey_image(rows), height, width));
}

TEST(Resize, LeavesAnImageOfItsSizeAsItIs) {
  const Image image(at::arange(5 * 7 * 3, at::kByte).view({5, 7, 3}));
  EXPECT_TRUE(tensors_equal(resize_bilinear(image, 5, 7).pixels(), image.pixels()));
}

// The triangle around the middle of the first pixel covers three of the four with heights 3/4,
// 3/4 and 1/4: (3 * 0 + 3 * 100 + 200) / 7 = 71.4; then (100 + 3 * 200 + 3 * 255) / 7 = 209.3.
TEST(Resize, WeighsAllThatAPixelCovers) {
  EXPECT_EQ(resized({{0, 100, 200, 255}}, 1, 2), (Greys{71, 209}));
  EXPECT_EQ(resized({{0}, {100}, {200}, {255}}, 2, 1), (Greys{71, 209}));
}

// Quarters between the middles of pixels: 80 + 1/4 * 80 and 80 + 3/4 * 80.
TEST(Resize, InterpolatesWhereItGrows) {
  EXPECT_EQ(resized({{80, 160}}, 1, 4), (Greys{80, 100, 140, 160}));
  EXPECT_EQ(resized({{80}, {160}}, 4, 1), (Greys{80, 100, 140, 160}));
}

TEST(Resize, RoundsHalfUp) { EXPECT_EQ(resized({{0, 1}}, 1, 1), (Greys{1})); }

TEST(Resize, KeepsChannelsApart) {
  const Image image(at::tensor({0, 10, 20, 100, 110, 120}, at::kByte).view({1, 2, 3}));
  EXPECT_EQ(testing::colors_of(resize_bilinear(image, 1, 1)), (Greys{50 << 16 | 60 << 8 | 70}));
}

TEST(Resize, KeepsAnImageOfOneColor) {
  for (const int grey : {0, 1, 127, 254, 255}) {
    const Image image(at::full({37, 53, 3}, grey, at::kByte));
    EXPECT_TRUE(tensors_equal(resize_bilinear(image, 11, 90).pixels(),
                              at::full({11, 90, 3}, grey, at::kByte)));
  }
}

// By Pillow 13. Rows first, as before it, give 53 in place of 54.
TEST(Resize, BeginsWithColumnsWhereHeightShrinksMore) {
  EXPECT_EQ(resized({{85, 0}, {255, 0}, {0, 0}, {0, 0}, {0, 0}, {170, 255}}, 2, 1),
            (Greys{59, 54}));
}

// So many weights that each is rounded to far from itself, and some to nothing.
TEST(Resize, StandsAMillionPixelsInARow) {
  const auto row = at::full({1, 20'000'000, 3}, 255, at::kByte);
  EXPECT_EQ(resize_bilinear(Image(row), 1, 1).width(), 1);
  EXPECT_EQ(resize_bilinear(Image(row.view({20'000'000, 1, 3})), 1, 1).height(), 1);
}

Greys cubic(const std::vector<std::vector<uint8_t>>& rows, int64_t height, int64_t width) {
  return greys_of(resize_bicubic(grey_image(rows), height, width));
}

// By Pillow 13.
TEST(ResizeBicubic, MakesContoursCrisper) {
  EXPECT_EQ(cubic({{0, 100, 200, 255}}, 1, 2), (Greys{60, 221}));
  EXPECT_EQ(cubic({{80, 160}}, 1, 4), (Greys{73, 97, 143, 167}));
  EXPECT_EQ(cubic({{80}, {160}}, 4, 1), (Greys{73, 97, 143, 167}));
}

// Cubics reach below 0 and above 255 there.
TEST(ResizeBicubic, StaysAmongBytes) {
  const Greys want = {0, 0, 0, 52, 203, 255, 255, 255};
  EXPECT_EQ(cubic({{0, 0, 255, 255}}, 1, 8), want);
  EXPECT_EQ(cubic({{0}, {0}, {255}, {255}}, 8, 1), want);
}

TEST(ResizeBicubic, KeepsAnImageOfOneColor) {
  for (const int grey : {0, 1, 127, 254, 255}) {
    const Image image(at::full({37, 53, 3}, grey, at::kByte));
    EXPECT_TRUE(tensors_equal(resize_bicubic(image, 11, 90).pixels(),
                              at::full({11, 90, 3}, grey, at::kByte)));
  }
}

TEST(Resize, RefusesASizeThatIsNone) {
  for (const auto& [height, width] : {std::pair{0, 5}, {5, 0}, {-1, 5}}) {
    EXPECT_TRUE(contains(message_of<std::invalid_argument>(
                             [&] { resize_bilinear(grey_image({{1}}), height, width); }),
                         "must be at least 1 pixel"));
  }
}

}  // namespace
}  // namespace gemma
