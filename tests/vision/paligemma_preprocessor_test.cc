#include <stdexcept>
#include <vector>

#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "tests/pictures.h"
#include "tests/testing.h"

#include <gemma/vision/paligemma_preprocessor.h>

namespace gemma {
namespace {

TEST(PaliGemmaPreprocessor, SpreadsBytesFromMinusOneToOne) {
  const auto pixels = paligemma_pixel_values(testing::grey_image({{0, 51}, {204, 255}}), 2);
  const auto channel = at::tensor({-1.0F, 51.0F / 127.5F - 1.0F, 204.0F / 127.5F - 1.0F, 1.0F});
  EXPECT_TRUE(
      testing::tensors_equal(pixels.contiguous(), channel.view({1, 2, 2}).repeat({3, 1, 1})));
}

TEST(PaliGemmaPreprocessor, MakesAnySideOfAnyImageFit) {
  const auto pixels = paligemma_pixel_values(testing::grey_image({{7, 7, 7, 7, 7}}), 14);
  EXPECT_EQ(pixels.sizes(), (std::vector<int64_t>{3, 14, 14}));
  EXPECT_THROW(paligemma_pixel_values(testing::grey_image({{7}}), 0), std::invalid_argument);
}

}  // namespace
}  // namespace gemma
