// The image decoders on any bytes: they answer or throw ImageError with one line, and what they
// answer has as many pixels as it says. Without LibTorch, as checkpoint_fuzz.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "tests/fuzz/checks.h"

#include <gemma/checkpoint/bytes.h>
#include <gemma/checkpoint/crc32.h>
#include <gemma/image/jpeg.h>
#include <gemma/image/orientation.h>
#include <gemma/image/png.h>

namespace {

using gemma::fuzz::require;

constexpr int64_t kMaxPixels = 1 << 18;  // Larger ones take time, and show nothing new.

void check_orientation(int orientation) { require(orientation >= 1 && orientation <= 8); }

void check(const gemma::DecodedImage& image) {
  require(image.height > 0 && image.width > 0 && image.height <= kMaxPixels / image.width);
  require(image.rgb.size() == static_cast<size_t>(image.height * image.width * 3));
  check_orientation(image.orientation);
}

void check_message(std::string_view message) {
  for (const char c : message) require(c >= 0x20 && c < 0x7f);
  require(!message.empty() && message.size() < 500);
}

template <typename Decode>
void run(Decode decode, std::span<const std::byte> bytes) {
  try {
    check(decode(bytes, kMaxPixels));
  } catch (const gemma::ImageError& error) {
    check_message(error.what());
  }
}

uint32_t big_endian(gemma::Bytes bytes) {
  uint32_t value = 0;
  for (const std::byte byte : bytes.first(4)) value = value << 8 | std::to_integer<uint32_t>(byte);
  return value;
}

// The chunks' checksums made right, for mutations that would not get past them.
std::vector<std::byte> with_checksums(gemma::Bytes png) {
  std::vector<std::byte> file(png.begin(), png.end());
  size_t at = 8;
  while (file.size() - at >= 12) {
    const std::span<std::byte> chunk = std::span(file).subspan(at);
    const size_t size = big_endian(chunk);
    if (chunk.size() - 12 < size) break;
    const uint32_t checksum = gemma::crc32(chunk.subspan(4, size + 4));
    for (size_t i = 0; i < 4; ++i) {
      chunk[8 + size + i] = static_cast<std::byte>(checksum >> (24 - 8 * i));
    }
    at += 12 + size;
  }
  return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  if (gemma::is_jpeg(bytes)) run(gemma::decode_jpeg, bytes);
  if (gemma::is_png(bytes)) {
    run(gemma::decode_png, bytes);
    run(gemma::decode_png, with_checksums(bytes));
  }
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check_orientation(gemma::orientation_of(text, {}));
  check_orientation(gemma::orientation_of({}, text));
  check_orientation(gemma::orientation_of(gemma::exif_of_raw_profile(text), {}));
  return 0;
}
