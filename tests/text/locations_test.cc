#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <gemma/text/locations.h>

namespace gemma {
namespace {

std::string mask_text(int64_t first, int64_t count) {
  std::string text;
  for (int64_t i = 0; i < count; ++i) text += fmt::format("<seg{:03}>", first + i);
  return text;
}

LocatedObject label(const std::string& text) { return {.place = {}, .mask = {}, .label = text}; }

TEST(Locations, AreTopLeftBottomRightThenWhatItIs) {
  const auto objects = parse_locations("<loc0256><loc0512><loc1023><loc0768> cat\n");
  ASSERT_EQ(objects.size(), 1U);
  EXPECT_EQ(objects[0].place, (std::array<int64_t, 4>{256, 512, 1023, 768}));
  EXPECT_EQ(objects[0].label, "cat");
  EXPECT_EQ(objects[0].box(/*height=*/100, /*width=*/2048),
            (Box{.x0 = 1024, .y0 = 25, .x1 = 1536, .y1 = 1023.0 / 1024 * 100}));
}

TEST(Locations, AreSeveralBehindSemicolons) {
  const auto objects = parse_locations(
      "<loc0001><loc0002><loc0003><loc0004> a red car ; <loc0005><loc0006><loc0007><loc0008>car;");
  ASSERT_EQ(objects.size(), 2U);
  EXPECT_EQ(objects[0].label, "a red car");
  EXPECT_EQ(objects[1].label, "car");
  EXPECT_EQ(objects[1].place, (std::array<int64_t, 4>{5, 6, 7, 8}));
}

TEST(Locations, MayHaveAMaskOfSixteenCodes) {
  const auto place = std::string("<loc0000><loc0000><loc1023><loc1023>");
  const auto objects = parse_locations(place + mask_text(112, 16) + " cat");
  ASSERT_EQ(objects.size(), 1U);
  EXPECT_EQ(objects[0].mask.size(), 16U);
  EXPECT_EQ(objects[0].mask.front(), 112);
  EXPECT_EQ(objects[0].mask.back(), 127);
  EXPECT_EQ(objects[0].label, "cat");
  EXPECT_TRUE(parse_locations(place + mask_text(0, 15) + " cat")[0].mask.empty());
  EXPECT_TRUE(parse_locations(place + mask_text(113, 16) + " cat")[0].mask.empty());  // 128.
}

TEST(Locations, AreNoneInAnyOtherText) {
  for (const std::string text :
       {"yes", "<loc0000><loc0000><loc0000> cat", "<loc0000><loc0000><loc0000><loc1024> cat",
        "<loc0000><loc0000><loc0000><loc-001> cat", "<loc0000><loc0000><loc0000><loc 001> cat",
        "<loc0000><loc0000><loc0000><loc00001> cat", "<loc0000><loc0000><loc0000><loc000",
        "a <loc0000><loc0000><loc0000><loc0000>", "\xff<loc"}) {
    EXPECT_EQ(parse_locations(text), std::vector{label(text)}) << text;
    EXPECT_EQ(parse_locations(text)[0].box(10, 10), std::nullopt);
  }
  EXPECT_TRUE(parse_locations("").empty());
  EXPECT_TRUE(parse_locations(" ; ;\n").empty());
}

}  // namespace
}  // namespace gemma
