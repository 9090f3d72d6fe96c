#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/image/draw.h>

namespace gemma {
namespace {

// Which pixels of a black picture are no longer black.
at::Tensor drawn(const std::vector<Frame>& frames, int64_t height, int64_t width) {
  const Image black(at::zeros({height, width, 3}, at::kByte));
  const auto image = with_frames(black, frames);
  EXPECT_TRUE(at::equal(black.pixels(), at::zeros({height, width, 3}, at::kByte)));
  return image.pixels().to(at::kInt).sum(-1) > 0;
}

TEST(Draw, PutsALineOfTwoPixelsInsideAFrame) {
  const auto got = drawn({{.left = 1, .top = 2, .right = 9, .bottom = 8}}, 10, 12);
  auto want = at::zeros({10, 12}, at::kBool);
  want.slice(0, 2, 8).slice(1, 1, 9).fill_(true);
  want.slice(0, 4, 6).slice(1, 3, 7).fill_(false);
  EXPECT_TRUE(testing::tensors_equal(got, want));
}

TEST(Draw, LeavesOutWhatIsOutsideThePicture) {
  const auto got = drawn({{.left = -5, .top = -5, .right = 100, .bottom = 4}}, 6, 6);
  auto want = at::zeros({6, 6}, at::kBool);
  want.slice(0, 2, 4).fill_(true);
  EXPECT_TRUE(testing::tensors_equal(got, want));
  EXPECT_FALSE(drawn({{.left = 4, .top = 4, .right = 2, .bottom = 2}}, 6, 6).any().item<bool>());
  EXPECT_FALSE(drawn({}, 6, 6).any().item<bool>());
}

TEST(Draw, GivesNeighboursOtherColours) {
  const Image black(at::zeros({20, 40, 3}, at::kByte));
  const std::vector<Frame> frames = {{.left = 0, .top = 0, .right = 9, .bottom = 9},
                                     {.left = 20, .top = 0, .right = 29, .bottom = 9}};
  const auto pixels = with_frames(black, frames).pixels();
  EXPECT_FALSE(at::equal(pixels[0][0], pixels[0][20]));
}

}  // namespace
}  // namespace gemma
