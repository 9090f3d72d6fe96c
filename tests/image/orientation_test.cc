#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/pictures.h"

#include <gemma/image/orientation.h>

namespace gemma {
namespace {

using namespace std::string_literals;
using testing::exif_of;

constexpr std::string_view kNoXmp;
constexpr std::string_view kNoExif;

int of_exif(std::string_view exif) { return orientation_of(exif, kNoXmp); }
int of_xmp(std::string_view xmp) { return orientation_of(kNoExif, xmp); }

// Big-endian Exif of one entry, which begins at byte 10.
std::string big_endian_exif(std::string_view entry) {
  return "MM\0*\0\0\0\x08\0\1"s + std::string(entry) + "\0\0\0\0"s;
}

TEST(Orientation, IsWhatExifSays) {
  for (uint16_t orientation = 1; orientation <= 8; ++orientation) {
    EXPECT_EQ(of_exif(exif_of(orientation)), orientation);
    EXPECT_EQ(of_exif("Exif\0\0"s + exif_of(orientation)), orientation);
    EXPECT_EQ(of_exif("Exif\0\0Exif\0\0"s + exif_of(orientation)), orientation);
  }
}

TEST(Orientation, IsANumberOfAnyType) {
  const auto of_type = [](char type, std::string_view value) {
    return of_exif(big_endian_exif("\1\x12\0"s + type + "\0\0\0\1"s + std::string(value)));
  };
  EXPECT_EQ(of_type('\3', "\0\6\0\0"s), 6);
  EXPECT_EQ(of_type('\4', "\0\0\0\6"s), 6);
  EXPECT_EQ(of_type('\6', "\6\0\0\0"s), 6);
  EXPECT_EQ(of_type('\x08', "\0\6\0\0"s), 6);
  EXPECT_EQ(of_type('\x09', "\0\0\0\6"s), 6);
  EXPECT_EQ(of_type('\x0b', "\x40\xc0\0\0"s), 6);  // The float 6.
  EXPECT_EQ(of_type('\x0b', "\x40\xc0\0\1"s), 1);
  EXPECT_EQ(of_type('\x0d', "\0\0\0\6"s), 6);
  EXPECT_EQ(of_type('\1', "\6\0\0\0"s), 1);  // Bytes and text are no numbers.
  EXPECT_EQ(of_type('\2', "6\0\0\0"s), 1);
  EXPECT_EQ(of_type('\x0e', "\0\0\0\6"s), 1);  // There is no such type.
}

TEST(Orientation, MayLieElsewhereInExif) {
  const auto of_type = [](char type, std::string_view value) {
    return of_exif(big_endian_exif("\1\x12\0"s + type + "\0\0\0\1\0\0\0\x1a"s) +
                   std::string(value));
  };
  EXPECT_EQ(of_type('\5', "\0\0\0\x0c\0\0\0\2"s), 6);  // 12 / 2.
  EXPECT_EQ(of_type('\5', "\0\0\0\x0c\0\0\0\0"s), 1);
  EXPECT_EQ(of_type('\x0c', "\x40\x18\0\0\0\0\0\0"s), 6);
  EXPECT_EQ(of_type('\x10', "\0\0\0\0\0\0\0\6"s), 6);
  EXPECT_EQ(of_type('\x10', "\0\0\0\0\0\0\0"s), 1);  // Cut off.
  // Of several values the first.
  EXPECT_EQ(of_exif(big_endian_exif("\1\x12\0\3\0\0\0\3\0\0\0\x1a"s) + "\0\6\0\1\0\1"s), 6);
}

TEST(Orientation, IsFoundBehindOtherEntries) {
  const auto exif_with = [](const std::string& entry) {
    auto exif = exif_of(3);
    exif[8] = 3;  // Entries.
    return exif.insert(10, entry + entry);
  };
  EXPECT_EQ(of_exif(exif_with("\x0f\1\2\0\4\0\0\0abc\0"s)), 3);
  // An entry that claims 4 GB is passed over, and so is one of an unknown type, and an empty one.
  EXPECT_EQ(of_exif(exif_with("\x0f\1\2\0\xff\xff\xff\xff\0\0\0\0"s)), 3);
  EXPECT_EQ(of_exif(exif_with("\x0f\1\x63\0\1\0\0\0\0\0\0\0"s)), 3);
  EXPECT_EQ(of_exif(exif_with("\x12\1\3\0\0\0\0\0\6\0\0\0"s)), 3);
  // One whose text lies beyond the end is the last that is read.
  EXPECT_EQ(of_exif(exif_with("\x0f\1\2\0\5\0\0\0\xff\0\0\0"s)), 1);
}

TEST(Orientation, IsUprightOutOfRangeAndInDamagedExif) {
  for (const int orientation : {0, 9, 0xffff}) {
    EXPECT_EQ(of_exif(exif_of(static_cast<uint16_t>(orientation))), 1);
  }
  for (const std::string& exif :
       {""s, "Exif"s, "Exif\0\0"s, "II*\0"s, "II*\0\xff\xff\xff\xff"s, "XX*\0\x08\0\0\0"s}) {
    EXPECT_EQ(of_exif(exif), 1);
  }
  for (size_t size = 0; size < 22; ++size) {
    EXPECT_EQ(of_exif(std::string_view(exif_of(6)).substr(0, size)), 1) << size;
  }
}

TEST(Orientation, IsTheFirstThatXmpSays) {
  EXPECT_EQ(of_xmp("<x tiff:Orientation=\"6\"/>"), 6);
  EXPECT_EQ(of_xmp("<tiff:Orientation>8</tiff:Orientation>"), 8);
  EXPECT_EQ(of_xmp("tiff:Orientation='3' tiff:Orientation tiff:Orientation=\"5\""), 5);
  EXPECT_EQ(of_xmp("tiff:Orientation=\"9\" tiff:Orientation=\"5\""), 1);
  for (const auto* xmp : {"", "tiff:Orientation", "tiff:Orientation=\"", "tiff:Orientation>x",
                          "tiff:Orientation=\"0\"", "exif:Orientation=\"6\""}) {
    EXPECT_EQ(of_xmp(xmp), 1) << xmp;
  }
}

TEST(Orientation, IsAskedOfXmpWhereExifHasNone) {
  constexpr std::string_view kXmp = "tiff:Orientation=\"6\"";
  EXPECT_EQ(orientation_of(exif_of(3), kXmp), 3);
  EXPECT_EQ(orientation_of(exif_of(9), kXmp), 1);
  EXPECT_EQ(orientation_of("damaged", kXmp), 1);
  EXPECT_EQ(orientation_of("Exif\0\0"s, kXmp), 6);
  EXPECT_EQ(orientation_of(big_endian_exif("\1\x0f\0\3\0\0\0\1\0\3\0\0"s), kXmp), 6);
}

TEST(RawProfile, IsHexadecimalDigitsAfterThreeLines) {
  EXPECT_EQ(exif_of_raw_profile("\nexif\n       4\n4d4D\n00 2a\n"), "MM\0*"s);
  EXPECT_EQ(exif_of_raw_profile("\r\nexif\r\n4\r\n4d4d002a\r\n"), "MM\0*"s);
  for (const auto* text :
       {"", "\n", "\nexif\n4", "\nexif\n4\n", "\nexif\n4\n4d4", "\nexif\n4\n4g"}) {
    EXPECT_EQ(exif_of_raw_profile(text), "") << text;
  }
}

}  // namespace
}  // namespace gemma
