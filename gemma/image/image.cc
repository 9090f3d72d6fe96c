#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/ops/flip.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/config/dtype_name.h>
#include <gemma/errors.h>
#include <gemma/image/decoded_image.h>
#include <gemma/image/image.h>
#include <gemma/image/jpeg.h>
#include <gemma/image/png.h>

namespace gemma {
namespace {

constexpr int64_t kChannels = 3;

at::Tensor copy_of(std::span<const std::byte> rgb, int64_t height, int64_t width) {
  // By division, which unlike the product cannot overflow.
  const size_t size = rgb.size();
  if (height < 1 || width < 1 || size % kChannels != 0 ||
      size / kChannels % static_cast<size_t>(width) != 0 ||
      size / kChannels / static_cast<size_t>(width) != static_cast<size_t>(height)) {
    throw std::invalid_argument(fmt::format(
        "Image: got {} bytes for height {} and width {}, expected height * width * 3 and sides of "
        "at least 1 pixel",
        size, height, width));
  }
  at::Tensor pixels = at::empty({height, width, kChannels}, at::kByte);
  std::memcpy(pixels.mutable_data_ptr<uint8_t>(), rgb.data(), size);
  return pixels;
}

std::string about_image(std::string_view name, std::string_view what) {
  return fmt::format("read_image: {}: {}", name, what);
}

DecodedImage decode(std::span<const std::byte> bytes, int64_t max_pixels) {
  if (bytes.empty()) throw ImageError("is empty (0 bytes)");
  if (is_jpeg(bytes)) return decode_jpeg(bytes, max_pixels);
  if (is_png(bytes)) return decode_png(bytes, max_pixels);
  throw ImageError("is neither a JPEG nor a PNG file; save it as one of them");
}

// The tensor keeps the vector: its bytes are not copied.
at::Tensor as_tensor(DecodedImage image) {
  auto* const rgb = new std::vector<uint8_t>(std::move(image.rgb));
  return at::from_blob(
      rgb->data(), {image.height, image.width, kChannels}, [rgb](void*) { delete rgb; }, at::kByte);
}

// Exif's orientations, as ImageOps.exif_transpose undoes them.
at::Tensor upright(const at::Tensor& pixels, int orientation) {
  switch (orientation) {
    case 2:
      return pixels.flip({1});
    case 3:
      return pixels.flip({0, 1});
    case 4:
      return pixels.flip({0});
    case 5:
      return pixels.transpose(0, 1);
    case 6:
      return pixels.transpose(0, 1).flip({1});
    case 7:
      return pixels.transpose(0, 1).flip({0, 1});
    case 8:
      return pixels.transpose(0, 1).flip({0});
    default:
      return pixels;
  }
}

std::vector<char> bytes_of(const std::filesystem::path& path) {
  const std::string name = path.string();
  const auto status = std::filesystem::status(path);
  if (!std::filesystem::exists(status)) {
    throw FileNotFound(about_image(name, "there is no such file"));
  }
  if (!std::filesystem::is_regular_file(status)) {
    throw std::runtime_error(about_image(name, "is not a file; name a JPEG or PNG file"));
  }
  std::error_code unknown;
  const auto size = std::filesystem::file_size(path, unknown);
  if (!unknown && size > kMaxImageBytes) {
    throw std::runtime_error(about_image(
        name, fmt::format("has {} bytes, but at most {} are read", size, kMaxImageBytes)));
  }
  std::vector<char> bytes(unknown ? 0 : size);
  std::ifstream file(path, std::ios::binary);
  if (unknown || !file.read(bytes.data(), std::ssize(bytes))) {
    throw std::runtime_error(about_image(name, "cannot be read; check its permissions"));
  }
  return bytes;
}

}  // namespace

Image::Image(at::Tensor pixels) : pixels_(std::move(pixels)) {
  if (!pixels_.defined() || pixels_.scalar_type() != at::kByte || pixels_.dim() != 3 ||
      pixels_.size(2) != kChannels || pixels_.numel() == 0 || !pixels_.is_cpu()) {
    throw std::invalid_argument(
        pixels_.defined()
            ? fmt::format(
                  "Image: got a tensor of {} {} on {}, expected uint8 [height, width, 3] on "
                  "the CPU",
                  dtype_name(pixels_.scalar_type()), pixels_.sizes(), pixels_.device().str())
            : "Image: got no tensor, expected uint8 [height, width, 3]");
  }
  pixels_ = pixels_.contiguous();
}

Image::Image(std::span<const std::byte> rgb, int64_t height, int64_t width)
    : pixels_(copy_of(rgb, height, width)) {}

Image read_image(const std::filesystem::path& path, int64_t max_pixels) {
  const auto bytes = bytes_of(path);
  return decode_image(std::as_bytes(std::span(bytes)), path.string(), max_pixels);
}

Image decode_image(std::span<const std::byte> bytes, const std::string& name, int64_t max_pixels) {
  try {
    DecodedImage image = decode(bytes, max_pixels);
    const int orientation = image.orientation;
    return Image(upright(as_tensor(std::move(image)), orientation));
  } catch (const ImageError& error) {
    throw std::runtime_error(about_image(name, error.what()));
  }
}

}  // namespace gemma
