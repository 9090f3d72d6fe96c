#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/image/png_writer.h>

namespace gemma {
namespace {

TEST(PngWriter, WritesWhatIsReadAgain) {
  for (const auto& [height, width] : {std::pair{1, 1}, {3, 7}, {200, 101}}) {
    at::manual_seed(1);
    const Image image(at::randint(256, {height, width, 3}, at::kByte));
    const auto file = encode_png(image);
    EXPECT_TRUE(testing::tensors_equal(decode_image(file, "x").pixels(), image.pixels()));
  }
}

}  // namespace
}  // namespace gemma
