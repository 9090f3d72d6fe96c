#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/pictures.h"

#include <gemma/image/exif.h>

namespace gemma {
namespace {

using namespace std::string_literals;
using testing::exif_of;

int orientation_of(std::string_view exif) { return exif_orientation(testing::as_bytes(exif)); }

TEST(Exif, HoldsAnOrientation) {
  for (uint16_t orientation = 1; orientation <= 8; ++orientation) {
    EXPECT_EQ(orientation_of(exif_of(orientation)), orientation);
    EXPECT_EQ(orientation_of("Exif\0\0"s + exif_of(orientation)), orientation);
  }
}

TEST(Exif, IsReadInBothByteOrdersAndAllSizes) {
  const auto big = [](std::string_view type, std::string_view value) {
    return "MM\0*\0\0\0\x08\0\1\1\x12\0"s + std::string(type) + "\0\0\0\1"s + std::string(value);
  };
  EXPECT_EQ(orientation_of(big("\1", "\6\0\0\0"s)), 6);
  EXPECT_EQ(orientation_of(big("\3", "\0\6\0\0"s)), 6);
  EXPECT_EQ(orientation_of(big("\4", "\0\0\0\6"s)), 6);
  EXPECT_EQ(orientation_of(big("\5", "\0\0\0\6"s)), 1);  // A fraction, which lies elsewhere.
}

TEST(Exif, IsSearchedBehindOtherEntries) {
  const auto entry = "\x0f\1\2\0\4\0\0\0abc\0"s;
  auto exif = exif_of(3);
  exif[8] = 3;  // Entries.
  EXPECT_EQ(orientation_of(exif.insert(10, entry + entry)), 3);
}

TEST(Exif, IsUprightWhereItSaysNothingThatCanBe) {
  for (const int orientation : {0, 9, 0xffff}) {
    EXPECT_EQ(orientation_of(exif_of(static_cast<uint16_t>(orientation))), 1);
  }
  for (const std::string& exif :
       {""s, "Exif"s, "Exif\0\0"s, "II*\0"s, "II*\0\xff\xff\xff\xff"s, "XX*\0\x08\0\0\0"s}) {
    EXPECT_EQ(orientation_of(exif), 1);
  }
}

TEST(Exif, IsUprightWhereItIsCutOff) {
  const auto exif = exif_of(6);
  for (size_t size = 0; size < 20; ++size) {
    EXPECT_EQ(orientation_of(std::string_view(exif).substr(0, size)), 1) << size;
  }
}

}  // namespace
}  // namespace gemma
