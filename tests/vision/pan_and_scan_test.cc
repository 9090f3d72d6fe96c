#include <cstdint>
#include <vector>

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "tests/pictures.h"
#include "tests/testing.h"

#include <gemma/vision/pan_and_scan.h>

namespace gemma {
namespace {

using testing::contains;
using testing::grey_image;
using testing::greys_of;
using testing::message_of;
using testing::tensors_equal;
using Greys = std::vector<int>;

Image white(int64_t height, int64_t width) {
  return Image(at::full({height, width, 3}, 255, at::kByte));
}

struct Row {
  int64_t longer;
  int64_t shorter;
  int64_t crops;
  int64_t size;
};

// Ratio + 1/2, rounded down, within the crops of 256 that fit, 2 and 4; and none below 3/2, or of
// less than 256 pixels.
TEST(PanAndScan, CutsTheLongerSide) {
  for (const Row& row : std::vector<Row>{{896, 896, 1, 896},
                                         {449, 300, 1, 449},
                                         {450, 300, 1, 450},  // Two crops would be of 225.
                                         {511, 256, 2, 256},
                                         {510, 256, 1, 510},
                                         {749, 300, 2, 375},
                                         {750, 300, 2, 375},  // 2 crops of 256 fit, not 3.
                                         {767, 300, 2, 384},
                                         {768, 300, 3, 256},
                                         {999, 400, 2, 500},
                                         {1000, 400, 3, 334},
                                         {1300, 300, 4, 325},
                                         {2600, 260, 4, 650},
                                         {1300, 255, 1, 1300}}) {
    SCOPED_TRACE(row.longer);
    const auto wide = pan_and_scan_os_with_crop_positions(white(row.shorter, row.longer));
    const auto tall = pan_and_scan_os_with_crop_positions(white(row.longer, row.shorter));
    ASSERT_EQ(std::ssize(wide.positions), row.crops);
    ASSERT_EQ(std::ssize(tall.positions), row.crops);
    for (int64_t i = 0; i < row.crops; ++i) {
      const auto index = static_cast<size_t>(i);
      const int64_t begin = i * row.size;
      const int64_t end = begin + row.size;
      EXPECT_EQ(wide.positions[index], (CropPosition{0, begin, row.shorter, end}));
      EXPECT_EQ(tall.positions[index], (CropPosition{begin, 0, end, row.shorter}));
      EXPECT_EQ(wide.images[index].width(), row.size);
      EXPECT_EQ(tall.images[index].height(), row.size);
    }
  }
}

TEST(PanAndScan, GivesPixelsInOrderAndBlackBeyondTheEdge) {
  const auto crops = pan_and_scan(grey_image({{1, 2, 3, 4, 5}, {6, 7, 8, 9, 10}}),
                                  /*min_crop_size=*/1);
  ASSERT_EQ(crops.size(), 3);
  EXPECT_EQ(greys_of(crops[0]), (Greys{1, 2, 6, 7}));
  EXPECT_EQ(greys_of(crops[1]), (Greys{3, 4, 8, 9}));
  EXPECT_EQ(greys_of(crops[2]), (Greys{5, 0, 10, 0}));
  const auto below = pan_and_scan(grey_image({{1}, {2}, {3}}), /*min_crop_size=*/1,
                                  /*max_num_crops=*/2);
  ASSERT_EQ(below.size(), 2);
  EXPECT_EQ(greys_of(below[1]), (Greys{3, 0}));
}

// Four crops of two pixels: the last begins behind the fifth.
TEST(PanAndScan, GivesBlackForACropThatIsOutside) {
  const auto crops = pan_and_scan(grey_image({{1, 2, 3, 4, 5}}), /*min_crop_size=*/1);
  ASSERT_EQ(crops.size(), 4);
  EXPECT_EQ(greys_of(crops[2]), (Greys{5, 0}));
  EXPECT_EQ(greys_of(crops[3]), (Greys{0, 0}));
}

TEST(PanAndScan, GivesTheImageItselfWhereItIsNotCut) {
  const auto image = white(300, 300);
  const auto crops = pan_and_scan_os_with_crop_positions(image);
  ASSERT_EQ(crops.images.size(), 1);
  EXPECT_TRUE(crops.images[0].pixels().is_same(image.pixels()));
  EXPECT_EQ(crops.positions[0], (CropPosition{0, 0, 300, 300}));
}

TEST(PanAndScan, RefusesLimitsThatAreNone) {
  EXPECT_TRUE(contains(message_of<std::invalid_argument>([] { pan_and_scan(white(3, 3), 0); }),
                       "min_crop_size is 0 and max_num_crops is 4, but both must be at least 1"));
  EXPECT_TRUE(contains(message_of<std::invalid_argument>([] { pan_and_scan(white(3, 3), 256, 0); }),
                       "max_num_crops is 0"));
}

}  // namespace
}  // namespace gemma
