#include <cstdint>
#include <vector>

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "tests/pictures.h"
#include "tests/testing.h"

#include <gemma/vision/preprocessor.h>

namespace gemma {
namespace {

using testing::grey_image;
using testing::message_of;
using testing::tensors_equal;

TEST(SiglipPreprocessor, SpreadsBytesFromMinusOneToOne) {
  const Image image = grey_image({{0, 51}, {204, 255}});
  const auto pixels = preprocess_images_for_siglip_vision({&image, 1}, /*image_size=*/2);
  ASSERT_EQ(pixels.size(), 1);
  // 51 / 255 is a fifth as float32 has it.
  const auto channel = at::tensor({-1.0F, (0.2F - 0.5F) / 0.5F, (0.8F - 0.5F) / 0.5F, 1.0F});
  EXPECT_TRUE(tensors_equal(pixels[0].contiguous(), channel.view({1, 2, 2}).repeat({3, 1, 1})));
}

TEST(SiglipPreprocessor, HasTheStridesOfTheReference) {
  const Image image = grey_image({{1}});
  const auto pixels = preprocess_images_for_siglip_vision({&image, 1});
  EXPECT_EQ(pixels[0].sizes(), (std::vector<int64_t>{3, 896, 896}));
  EXPECT_EQ(pixels[0].strides(), (std::vector<int64_t>{1, 3 * 896, 3}));
}

TEST(SiglipPreprocessor, PutsChannelsFirst) {
  const Image image(at::tensor({0, 255, 0}, at::kByte).view({1, 1, 3}));
  const auto pixels = preprocess_images_for_siglip_vision({&image, 1}, /*image_size=*/4);
  EXPECT_TRUE(tensors_equal(pixels[0][0].contiguous(), at::full({4, 4}, -1.0F)));
  EXPECT_TRUE(tensors_equal(pixels[0][1].contiguous(), at::full({4, 4}, 1.0F)));
}

TEST(SiglipPreprocessor, TakesEachImageByItself) {
  const std::vector<Image> images = {grey_image({{0}}), grey_image({{255, 255}})};
  const auto pixels = preprocess_images_for_siglip_vision(images, /*image_size=*/1);
  ASSERT_EQ(pixels.size(), 2);
  EXPECT_EQ(pixels[0][0].item<float>(), -1.0F);
  EXPECT_EQ(pixels[1][0].item<float>(), 1.0F);
  EXPECT_TRUE(preprocess_images_for_siglip_vision({}).empty());
}

TEST(SiglipPreprocessor, RefusesASizeThatIsNone) {
  EXPECT_EQ(message_of<std::invalid_argument>([] { preprocess_images_for_siglip_vision({}, 0); }),
            "preprocess_images_for_siglip_vision: image_size is 0, but must be at least 1 pixel");
}

}  // namespace
}  // namespace gemma
