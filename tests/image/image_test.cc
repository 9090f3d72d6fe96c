#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/bad_files.h"
#include "tests/pictures.h"
#include "tests/testing.h"

#include <gemma/errors.h>
#include <gemma/image/image.h>

namespace gemma {
namespace {

using namespace std::string_literals;
using testing::as_bytes;
using testing::BadFile;
using testing::colors_of;
using testing::contains;
using testing::message_of;
using testing::patched;
using testing::png_chunk;
using testing::png_file;
using testing::small_jpeg;
using testing::small_progressive_jpeg;
using testing::tensors_equal;
using Colors = std::vector<int>;

Image decoded(std::string_view file) { return decode_image(as_bytes(file), "x"); }

std::string error_of(std::string_view file, int64_t max_pixels = kMaxImagePixels) {
  return message_of<std::runtime_error>(
      [&] { decode_image(as_bytes(file), "folder/x", max_pixels); });
}

TEST(Image, HoldsWhatItIsGiven) {
  const Image image(as_bytes("abcdefghijklmnopqr"), /*height=*/2, /*width=*/3);
  EXPECT_EQ(image.height(), 2);
  EXPECT_EQ(image.width(), 3);
  EXPECT_TRUE(tensors_equal(image.pixels(), at::arange(97, 115, at::kByte).view({2, 3, 3})));
}

TEST(Image, MakesATensorContiguous) {
  const auto pixels = at::arange(18, at::kByte).view({3, 2, 3}).transpose(0, 1);
  const Image image(pixels);
  EXPECT_TRUE(image.pixels().is_contiguous());
  EXPECT_TRUE(tensors_equal(image.pixels(), pixels));
}

TEST(Image, RefusesWhatIsNoImage) {
  for (const auto& pixels :
       {at::zeros({2, 2, 3}), at::zeros({2, 2, 4}, at::kByte), at::zeros({2, 3}, at::kByte),
        at::zeros({0, 2, 3}, at::kByte), at::Tensor()}) {
    EXPECT_TRUE(contains(message_of<std::invalid_argument>([&] { Image image(pixels); }),
                         "expected uint8 [height, width, 3]"));
  }
}

TEST(Image, RefusesABufferOfAnotherSize) {
  constexpr int64_t kHuge = int64_t{1} << 62;
  for (const auto& [height, width] : std::vector<std::pair<int64_t, int64_t>>{
           {2, 2}, {1, 3}, {3, 1}, {-1, -2}, {0, 2}, {kHuge, 4}, {4, kHuge}, {kHuge, kHuge}}) {
    EXPECT_TRUE(contains(
        message_of<std::invalid_argument>([&] { Image(as_bytes("abcdef"), height, width); }),
        "Image: got 6 bytes"));
  }
}

// --- PNG -------------------------------------------------------------------------------------

TEST(DecodeImage, ReadsRgb) {
  EXPECT_EQ(colors_of(decoded(png_file({.width = 2, .height = 1}, "\0abcdef"s))),
            (Colors{0x616263, 0x646566}));
}

TEST(DecodeImage, SpreadsGreyOfFewBits) {
  const auto greys = [](uint8_t depth, std::string_view row) {
    return colors_of(decoded(png_file({.width = 4, .depth = depth, .color_type = 0}, row)));
  };
  EXPECT_EQ(greys(1, "\0\x50"s), (Colors{0, 0xffffff, 0, 0xffffff}));
  EXPECT_EQ(greys(2, "\0\x1b"s), (Colors{0, 0x555555, 0xaaaaaa, 0xffffff}));
  EXPECT_EQ(greys(4, "\0\x01\xef"s), (Colors{0, 0x111111, 0xeeeeee, 0xffffff}));
}

TEST(DecodeImage, CutsGreyOf16BitsOffAsPillowDoes) {
  const auto file =
      png_file({.width = 3, .depth = 16, .color_type = 0}, "\0\x00\x07\x00\xff\x01\x00"s);
  EXPECT_EQ(colors_of(decoded(file)), (Colors{0x070707, 0xffffff, 0xffffff}));
}

TEST(DecodeImage, KeepsTheUpperBitsOfColorsOf16) {
  EXPECT_EQ(colors_of(decoded(png_file({.depth = 16}, "\0\x12\xff\x34\xff\x56\xff"s))),
            (Colors{0x123456}));
}

TEST(DecodeImage, DropsAlpha) {
  EXPECT_EQ(colors_of(decoded(png_file({.color_type = 6}, "\0abc\0"s))), (Colors{0x616263}));
  EXPECT_EQ(colors_of(decoded(png_file({.color_type = 4}, "\0a\0"s))), (Colors{0x616161}));
}

TEST(DecodeImage, LooksColorsUpAndTakesThoseThatAreMissingForBlack) {
  const auto palette = png_chunk("PLTE", "abcdef") + png_chunk("tRNS", "\0"s);
  EXPECT_EQ(colors_of(decoded(png_file({.width = 3, .color_type = 3}, "\0\1\0\2"s, palette))),
            (Colors{0x646566, 0x616263, 0}));
}

// --- JPEG ------------------------------------------------------------------------------------

void expect_red_and_blue(const Image& image) {
  ASSERT_EQ(image.height(), 8);
  ASSERT_EQ(image.width(), 16);
  const auto colors = colors_of(image);
  for (size_t i = 0; i < colors.size(); ++i) {
    EXPECT_EQ(colors[i], i % 16 < 8 ? 0xfe0000 : 0x0000fe) << i;
  }
}

TEST(DecodeImage, ReadsJpeg) {
  expect_red_and_blue(decoded(small_jpeg()));
  expect_red_and_blue(decoded(small_progressive_jpeg()));
}

// By Pillow, of the inks (10, 200, 30, 40): 215 - 215 * 10 / 255 of red, and so on.
TEST(DecodeImage, ReadsCmyk) {
  const auto file = testing::from_hex(
      "ffd8ffee000e41646f626500640000000000ffdb004300020101010101020101010202020202040302020202"
      "0504040304060506060605060606070908060709070606080b08090a0a0a0a0a06080b0c0b0a0c090a0a0aff"
      "c000140800080008044311004d11005911004b1100ffc40014000100000000000000000000000000000009ff"
      "c40014100100000000000000000000000000000000ffda000e0443004d0059004b00003f007506d9842b8fff"
      "d9");
  EXPECT_EQ(colors_of(decoded(file)), Colors(64, 0xcf2ebe));
}

// --- upright ---------------------------------------------------------------------------------

// The letters are the colours' red: rows of the picture as it is to be seen, which is stored as
//   a b c
//   d e f
std::string shown_with(const std::string& chunks) {
  const auto image =
      decoded(png_file({.width = 3, .height = 2, .color_type = 0}, "\0abc\0def"s, chunks));
  EXPECT_TRUE(image.pixels().is_contiguous());
  std::string shown;
  for (const int grey : testing::greys_of(image)) {
    const bool starts_row =
        static_cast<int64_t>(shown.size() % (image.width() + 1)) == image.width();
    if (starts_row) shown += '/';
    shown += static_cast<char>(grey);
  }
  return shown;
}

TEST(DecodeImage, TurnsUprightAsExifSays) {
  const std::vector<std::string> upright = {"abc/def",  "abc/def",  "cba/fed",  "fed/cba",
                                            "def/abc",  "ad/be/cf", "da/eb/fc", "fc/eb/da",
                                            "cf/be/ad", "abc/def"};
  for (uint16_t orientation = 0; orientation < upright.size(); ++orientation) {
    EXPECT_EQ(shown_with(png_chunk("eXIf", testing::exif_of(orientation))), upright[orientation])
        << orientation;
  }
}

// As zlib.compress makes them of the texts of the test below.
std::string compressed_profile() {
  return testing::from_hex(
      "78dae34aadc84ce352000323332e134b134ba3440303030b03083004222320690c61838199010ae00200d600"
      "0d21");
}

std::string compressed_xmp() {
  return testing::from_hex("78dab3a95028c94c4bb3f22fca4ccd2b492cc9cccfb3553253d2b70300742a0868");
}

TEST(DecodeImage, TurnsUprightAsTextsOfPngSay) {
  const auto profile = "\nexif\n      26\n49492a0008000000010012010300010000000600000000000000\n"s;
  const auto xmp = "<x tiff:Orientation=\"6\"/>"s;
  const auto keyword = "Raw profile type exif\0"s;
  const auto adobe = "XML:com.adobe.xmp\0"s;
  for (const auto& chunk :
       {png_chunk("tEXt", "exif\0"s + testing::exif_of(6)), png_chunk("tEXt", keyword + profile),
        png_chunk("zTXt", keyword + "\0"s + compressed_profile()),
        png_chunk("iTXt", keyword + "\0\0\0\0"s + profile),
        png_chunk("iTXt", keyword + "\1\0en\0word\0"s + compressed_profile()),
        png_chunk("tEXt", adobe + xmp), png_chunk("zTXt", adobe + "\0"s + compressed_xmp()),
        png_chunk("iTXt", adobe + "\0\0en\0word\0"s + xmp),
        png_chunk("iTXt", adobe + "\1\0\0\0"s + compressed_xmp())}) {
    EXPECT_EQ(shown_with(chunk), "da/eb/fc") << chunk.substr(4, 26);
  }
}

TEST(DecodeImage, TakesTheLastOfSeveralAndExifFirst) {
  const auto chunk = [](std::string_view orientation) {
    return png_chunk("tEXt", "XML:com.adobe.xmp\0tiff:Orientation>"s + std::string(orientation));
  };
  EXPECT_EQ(shown_with(chunk("3") + chunk("6")), "da/eb/fc");
  const auto exif = [](uint16_t value) { return png_chunk("eXIf", testing::exif_of(value)); };
  EXPECT_EQ(shown_with(exif(3) + exif(6) + chunk("2")), "da/eb/fc");
}

TEST(DecodeImage, DamagedTextsOfPngLoseNoPicture) {
  const auto adobe = "XML:com.adobe.xmp\0"s;
  const auto zlib = compressed_xmp().substr(0, 9) + '\xff' + compressed_xmp().substr(10);
  for (const auto& text :
       {png_chunk("zTXt", adobe), png_chunk("zTXt", adobe + "\0"s),
        png_chunk("zTXt", adobe + "\1"s + compressed_xmp()),
        png_chunk("zTXt", adobe + "\0"s + zlib), png_chunk("iTXt", adobe),
        png_chunk("iTXt", adobe + "\1\1\0\0"s + compressed_xmp()),
        png_chunk("iTXt", adobe + "\1\0\0\0"s + zlib), png_chunk("iTXt", "XML:com.adobe.xmp"),
        png_chunk("tEXt", ""), png_chunk("tEXt", "Raw profile type exif\0\nexif\n4\nxyz"s)}) {
    EXPECT_EQ(shown_with(text), "abc/def");
  }
}

TEST(DecodeImage, TurnsJpegUpright) {
  const auto image = decoded(testing::with_exif(small_jpeg(), testing::exif_of(6)));
  EXPECT_EQ(image.height(), 16);
  EXPECT_EQ(image.width(), 8);
  EXPECT_EQ(colors_of(image).front(), 0xfe0000);
  EXPECT_EQ(colors_of(image).back(), 0x0000fe);
}

TEST(DecodeImage, JoinsExifOfSeveralSegmentsOfJpeg) {
  const auto exif = testing::exif_of(6);
  const auto rest = testing::with_exif(small_jpeg(), exif.substr(15));
  EXPECT_EQ(decoded(testing::with_exif(rest, exif.substr(0, 15))).height(), 16);
}

TEST(DecodeImage, TurnsJpegUprightAsXmpSays) {
  const auto xmp = [](const std::string& jpeg, std::string_view orientation) {
    return testing::with_app1(jpeg, "http://ns.adobe.com/xap/1.0/\0tiff:Orientation=\""s +
                                        std::string(orientation) + "\"");
  };
  EXPECT_EQ(decoded(xmp(small_jpeg(), "6")).height(), 16);
  EXPECT_EQ(decoded(xmp(xmp(small_jpeg(), "6"), "1")).height(), 16);  // The last counts.
  EXPECT_EQ(decoded(testing::with_exif(xmp(small_jpeg(), "6"), testing::exif_of(1))).height(), 8);
}

// --- bad files -------------------------------------------------------------------------------

class BadImage : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadImage, IsRefusedInOneLine) {
  const auto message = error_of(GetParam().bytes);
  EXPECT_TRUE(message.starts_with("read_image: folder/x: ")) << message;
  EXPECT_EQ(message.find_first_of("\n\r\t\x1b"), std::string::npos) << message;
  EXPECT_TRUE(contains(message, GetParam().expected));
}

std::string sof(uint16_t height, uint16_t width) {
  const auto at = small_jpeg().find("\xff\xc0"s);
  auto file = small_jpeg();
  for (const auto& [place, value] : {std::pair{at + 5, height}, std::pair{at + 7, width}}) {
    file[place] = static_cast<char>(value >> 8);
    file[place + 1] = static_cast<char>(value & 0xff);
  }
  return file;
}

// As many scans as a file may have, and one more, each of them empty of bits.
std::string many_scans() {
  const auto file = small_progressive_jpeg();
  const auto last = file.rfind("\xff\xda"s);
  const auto scan = file.substr(last, file.size() - 2 - last);
  std::string scans;
  for (int i = 0; i < 101; ++i) scans += scan;
  return file.substr(0, file.size() - 2) + scans + "\xff\xd9";
}

std::vector<BadFile> bad_images() {
  const auto png = png_file({.width = 2, .height = 1}, "\0abcdef"s);
  const auto idat = png.find("IDAT");
  const auto jpeg = small_jpeg();
  const auto data = jpeg.find("\xff\xda"s);
  return {
      {"empty", "", "is empty (0 bytes)"},
      {"text", "hello", "is neither a JPEG nor a PNG file"},
      {"gif", "GIF89a\1\0\1\0", "is neither a JPEG nor a PNG file"},
      {"png_signature_alone", png.substr(0, 8), "is truncated"},
      {"png_without_its_end", png.substr(0, png.size() - 12), "is truncated"},
      {"png_of_width_0", png_file({.width = 0}, "\0abc"s), "is damaged: "},
      {"png_of_height_0", png_file({.height = 0}, "\0abc"s), "is damaged: "},
      {"png_of_width_2_31", png_file({.width = 0x80000000}, "\0abc"s), "is damaged: "},
      {"png_bomb", png_file({.width = 0x7fffffff, .height = 0x7fffffff}, "\0abc"s),
       "has 2147483647 x 2147483647 pixels, but at most 178956970 are read"},
      {"png_too_short_for_its_pixels", png_file({.width = 13000, .height = 13000}, "\0abc"s),
       "is truncated: it has "},
      {"png_of_depth_3", png_file({.depth = 3}, "\0abc"s), "is damaged: "},
      {"png_of_color_type_5", png_file({.color_type = 5}, "\0abc"s), "is damaged: "},
      {"png_with_too_few_rows", png_file({.height = 2}, "\0abc"s), "is damaged: "},
      {"png_with_an_unknown_filter",
       png_file({},
                "\x09"
                "abc"s),
       "is damaged: "},
      {"png_without_its_palette", png_file({.color_type = 3}, "\0a"s), "is damaged: "},
      {"png_with_a_bad_checksum_of_pixels", patched(png, idat + 12, 'X'), "is damaged: "},
      {"png_with_a_bad_checksum_of_its_header", patched(png, 20, '\3'), "is damaged: "},
      {"png_with_a_chunk_of_2_gib", patched(png, idat - 4, '\x7f'), "is "},
      {"jpeg_signature_alone", jpeg.substr(0, 3), "is truncated"},
      {"jpeg_without_its_end", jpeg.substr(0, jpeg.size() - 2), "is truncated"},
      {"jpeg_of_width_0", sof(8, 0), "is damaged: "},
      {"jpeg_of_height_0", sof(0, 16), "is damaged: "},
      {"jpeg_bomb", sof(65500, 65500), "has 65500 x 65500 pixels, but at most 178956970 are read"},
      {"jpeg_too_short_for_its_pixels", sof(13000, 13000), "is truncated: it has "},
      {"jpeg_with_fewer_blocks_than_pixels", sof(80, 160), "is damaged: "},
      {"jpeg_lossless", patched(jpeg, jpeg.find("\xff\xc0"s) + 1, '\xc3'), "is damaged: "},
      {"jpeg_without_tables", jpeg.substr(0, 20) + jpeg.substr(data), "is damaged: "},
      {"jpeg_of_pixels_that_stop", jpeg.substr(0, data + 14) + "\xff\xd9", "is damaged: "},
      {"jpeg_of_too_many_scans", many_scans(), "is stored in more than 100 scans"},
  };
}

INSTANTIATE_TEST_SUITE_P(, BadImage, ::testing::ValuesIn(bad_images()), [](const auto& row) {
  return row.param.name;
});

TEST(DecodeImage, RefusesFilesThatAreCutOffAnywhere) {
  const auto palette = png_chunk("PLTE", "abcdef");
  for (const auto& file :
       {png_file({.width = 2, .height = 1}, "\0abcdef"s),
        png_file({.width = 3, .color_type = 3}, "\0\1\0\2"s, palette), small_jpeg(),
        small_progressive_jpeg(), testing::with_exif(small_jpeg(), testing::exif_of(6))}) {
    for (size_t size = 0; size < file.size(); ++size) {
      EXPECT_TRUE(error_of(file.substr(0, size)).starts_with("read_image: folder/x: is "));
    }
  }
}

TEST(DecodeImage, NeverCrashesOnAByteThatIsWrong) {
  for (auto file : {png_file({.width = 2, .height = 1}, "\0abcdef"s), small_jpeg()}) {
    for (char& byte : file) {
      const char before = byte;
      for (const int value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
        byte = static_cast<char>(value);
        try {
          EXPECT_GT(decode_image(as_bytes(file), "x", /*max_pixels=*/10'000).width(), 0);
        } catch (const std::runtime_error& error) {
          EXPECT_TRUE(std::string_view(error.what()).starts_with("read_image: x: "));
        }
      }
      byte = before;
    }
  }
}

TEST(DecodeImage, KeepsToTheLimitItIsGiven) {
  EXPECT_TRUE(contains(error_of(small_jpeg(), 127), "has 16 x 8 pixels, but at most 127 are read"));
  EXPECT_EQ(decode_image(as_bytes(small_jpeg()), "x", 128).width(), 16);
}

TEST(DecodeImage, DamagedExifLosesNoPicture) {
  for (const std::string& exif : {""s, "II"s, "II*\0\xff\xff\xff\xff"s, "MM\0*\0\0\0\x08\xff\xff"s,
                                  testing::exif_of(77), testing::exif_of(6).substr(0, 17)}) {
    expect_red_and_blue(decoded(testing::with_exif(small_jpeg(), exif)));
  }
}

// --- files -----------------------------------------------------------------------------------

TEST(ReadImage, ReadsAFile) {
  const testing::TemporaryDirectory folder;
  expect_red_and_blue(read_image(folder.write("a.png", small_jpeg())));  // Its name does not count.
}

TEST(ReadImage, NamesWhatItCannotRead) {
  const testing::TemporaryDirectory folder;
  const auto path = folder.path() / "nowhere.png";
  EXPECT_EQ(message_of<FileNotFound>([&] { read_image(path); }),
            "read_image: " + path.string() + ": there is no such file");
  EXPECT_TRUE(contains(message_of<std::runtime_error>([&] { read_image(folder.path()); }),
                       "is not a file; name a JPEG or PNG file"));
  EXPECT_TRUE(contains(message_of<std::runtime_error>([&] { read_image(folder.write("e", "")); }),
                       "is empty (0 bytes)"));
  const auto pipe = folder.path() / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_TRUE(contains(message_of<std::runtime_error>([&] { read_image(pipe); }), "is not a file"));
}

TEST(ReadImage, DoesNotReadAFileThatIsTooLarge) {
  const testing::TemporaryDirectory folder;
  const auto path = folder.write("large.png", "");
  std::filesystem::resize_file(path, kMaxImageBytes + 1);  // A hole: it takes no room on the disk.
  EXPECT_TRUE(contains(message_of<std::runtime_error>([&] { read_image(path); }),
                       "has 536870913 bytes, but at most 536870912 are read"));
}

}  // namespace
}  // namespace gemma
