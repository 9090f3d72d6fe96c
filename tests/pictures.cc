#include "tests/pictures.h"

#include <span>

#include <ATen/ops/empty.h>

#include "tests/bad_files.h"

#include <gemma/checkpoint/crc32.h>

namespace gemma::testing {
namespace {

std::string big_endian(uint32_t value, size_t size = 4) {
  std::string bytes;
  for (size_t i = size; i-- > 0;) bytes += static_cast<char>(value >> (8 * i) & 0xff);
  return bytes;
}

// RFC 1950 around one stored block of RFC 1951.
std::string stored(std::string_view data) {
  uint32_t a = 1;
  uint32_t b = 0;
  for (const char c : data) {
    a = (a + static_cast<uint8_t>(c)) % 65521;
    b = (b + a) % 65521;
  }
  const auto size = static_cast<uint16_t>(data.size());
  return "\x78\x01\x01" + raw(size) + raw(static_cast<uint16_t>(~size)) + std::string(data) +
         big_endian(b << 16 | a);
}

}  // namespace

Image grey_image(const std::vector<std::vector<uint8_t>>& rows) {
  std::string rgb;
  for (const auto& row : rows) {
    for (const uint8_t grey : row) rgb.append(3, static_cast<char>(grey));
  }
  return {as_bytes(rgb), std::ssize(rows), std::ssize(rows.front())};
}

std::vector<int> greys_of(const Image& image) {
  std::vector<int> greys;
  for (const int color : colors_of(image)) greys.push_back(color >> 16);
  return greys;
}

std::vector<int> colors_of(const Image& image) {
  std::vector<int> colors;
  const auto* pixel = image.pixels().const_data_ptr<uint8_t>();
  for (int64_t i = 0; i < image.height() * image.width(); ++i, pixel += 3) {
    colors.push_back(pixel[0] << 16 | pixel[1] << 8 | pixel[2]);
  }
  return colors;
}

std::string png_chunk(std::string_view name, std::string_view data) {
  const std::string body = std::string(name) + std::string(data);
  return big_endian(static_cast<uint32_t>(data.size())) + body + big_endian(crc32(as_bytes(body)));
}

std::string png_file(const PngHeader& header, std::string_view rows, std::string_view chunks) {
  const std::string fields =
      big_endian(header.width) + big_endian(header.height) +
      std::string{static_cast<char>(header.depth), static_cast<char>(header.color_type), '\0', '\0',
                  static_cast<char>(header.interlaced)};
  return "\x89PNG\r\n\x1a\n" + png_chunk("IHDR", fields) + std::string(chunks) +
         png_chunk("IDAT", stored(rows)) + png_chunk("IEND", "");
}

std::string from_hex(std::string_view digits) {
  std::string bytes;
  for (size_t i = 0; i + 1 < digits.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(std::string(digits.substr(i, 2)), nullptr, 16));
  }
  return bytes;
}

std::string small_jpeg() {
  return from_hex(
      "ffd8ffe000104a46494600010100000100010000ffdb00430003020203020203030303040303040508050504"
      "04050a070706080c0a0c0c0b0a0b0b0d0e12100d0e110e0b0b1016101113141515150c0f1718161418121415"
      "14ffdb00430103040405040509050509140d0b0d141414141414141414141414141414141414141414141414"
      "1414141414141414141414141414141414141414141414141414ffc000110800080010030111000211010311"
      "01ffc4001500010100000000000000000000000000000708ffc4001410010000000000000000000000000000"
      "0000ffc4001501010100000000000000000000000000000907ffc40014110100000000000000000000000000"
      "000000ffda000c03010002110311003f009d10c2a60238c1d1ffd9");
}

std::string small_progressive_jpeg() {
  return from_hex(
      "ffd8ffe000104a46494600010100000100010000ffdb00430003020203020203030303040303040508050504"
      "04050a070706080c0a0c0c0b0a0b0b0d0e12100d0e110e0b0b1016101113141515150c0f1718161418121415"
      "14ffdb00430103040405040509050509140d0b0d141414141414141414141414141414141414141414141414"
      "1414141414141414141414141414141414141414141414141414ffc200110800080010030111000211010311"
      "01ffc4001500010100000000000000000000000000000607ffc4001501010100000000000000000000000000"
      "000806ffda000c030100021003100000019cc2aa40b8c75fffc4001410010000000000000000000000000000"
      "0010ffda00080101000105023fffc40014110100000000000000000000000000000010ffda0008010301013f"
      "013fffc40014110100000000000000000000000000000010ffda0008010201013f013fffc400141001000000"
      "00000000000000000000000010ffda0008010100063f023fffc4001410010000000000000000000000000000"
      "0010ffda0008010100013f213fffda000c03010002000300000010ebffc40014110100000000000000000000"
      "000000000010ffda0008010301013f103fffc40014110100000000000000000000000000000010ffda000801"
      "0201013f103fffc40014100100000000000000000000000000000010ffda0008010100013f103fffd9");
}

std::string with_app1(const std::string& jpeg, std::string_view data) {
  return jpeg.substr(0, 2) + "\xff\xe1" +
         big_endian(static_cast<uint32_t>(data.size() + 2), /*size=*/2) + std::string(data) +
         jpeg.substr(2);
}

std::string with_exif(const std::string& jpeg, std::string_view exif) {
  return with_app1(jpeg, std::string("Exif\0\0", 6) + std::string(exif));
}

std::string exif_of(uint16_t orientation) {
  return std::string("II*\0", 4) + raw<uint32_t>(8) + raw<uint16_t>(1) + raw<uint16_t>(0x0112) +
         raw<uint16_t>(3) + raw<uint32_t>(1) + raw(orientation) + raw<uint16_t>(0) +
         raw<uint32_t>(0);
}

}  // namespace gemma::testing
