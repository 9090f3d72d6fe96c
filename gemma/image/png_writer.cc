#include <png.h>
#include <stdexcept>

#include <fmt/format.h>

#include <gemma/image/png_writer.h>

namespace gemma {

std::vector<std::byte> encode_png(const Image& image) {
  png_image header{};
  header.version = PNG_IMAGE_VERSION;
  header.width = static_cast<png_uint_32>(image.width());
  header.height = static_cast<png_uint_32>(image.height());
  header.format = PNG_FORMAT_RGB;
  const auto write = [&](void* to, png_alloc_size_t& size) {
    if (png_image_write_to_memory(&header, to, &size, /*convert_to_8_bit=*/0,
                                  image.pixels().const_data_ptr(), /*row_stride=*/0,
                                  /*colormap=*/nullptr) == 0) {
      throw std::runtime_error(fmt::format("encode_png: {}", header.message));
    }
  };
  png_alloc_size_t size = 0;
  write(nullptr, size);  // Says the size alone.
  std::vector<std::byte> bytes(size);
  write(bytes.data(), size);
  return bytes;
}

}  // namespace gemma
