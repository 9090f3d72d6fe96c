#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <gemma/image/image.h>

// Writes the pictures that the tests of gemma/image read, good and bad.
namespace gemma::testing {

/// An image of equal channels, from rows of bytes.
Image grey_image(const std::vector<std::vector<uint8_t>>& rows);

/// The first channel of every pixel, row by row.
std::vector<int> greys_of(const Image& image);

/// Every pixel as 0xRRGGBB, row by row.
std::vector<int> colors_of(const Image& image);

/// A PNG chunk: length, name, data, checksum.
std::string png_chunk(std::string_view name, std::string_view data);

struct PngHeader {
  uint32_t width = 1;
  uint32_t height = 1;
  uint8_t depth = 8;
  uint8_t color_type = 2;
  uint8_t interlaced = 0;
};

/// A PNG file: the header, `chunks`, then `rows` (each with its filter's number in front), stored
/// without compression.
std::string png_file(const PngHeader& header, std::string_view rows, std::string_view chunks = {});

/// Of these bytes, written as hexadecimal digits.
std::string from_hex(std::string_view digits);

/// JPEG files of 16 x 8 pixels, by Pillow: the left half 0xfe0000, the right one 0x0000fe.
std::string small_jpeg();
std::string small_progressive_jpeg();

/// `jpeg` with a segment APP1 of this data before all others.
std::string with_app1(const std::string& jpeg, std::string_view data);

/// `jpeg` with this data in an Exif segment.
std::string with_exif(const std::string& jpeg, std::string_view exif);

/// Exif data that holds this orientation alone.
std::string exif_of(uint16_t orientation);

}  // namespace gemma::testing
