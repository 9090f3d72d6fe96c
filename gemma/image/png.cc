#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <png.h>

#include <fmt/format.h>

#include <gemma/image/exif.h>
#include <gemma/image/png.h>

namespace gemma {
namespace {

constexpr size_t kChannels = 3;

// libpng leaves a call that fails by longjmp. So such calls are made in guarded() alone, by
// functions that have nothing to destroy; what has, is a member here, or belongs to a caller.
class PngReader {
 public:
  explicit PngReader(std::span<const std::byte> bytes) : bytes_(bytes), rest_(bytes) {}
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  void read_header() {
    guarded([this] {
      png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, fail, ignore);
      if (png_ == nullptr) fail_with("cannot be read: no memory for libpng");
      info_ = png_create_info_struct(png_);
      if (info_ == nullptr) fail_with("cannot be read: no memory for libpng");
      png_set_read_fn(png_, this, read);
      png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // check() has the limit.
      keep_exif_alone();
      png_read_info(png_, info_);
    });
  }

  void check(int64_t max_pixels) const {
    const uint32_t height = png_get_image_height(png_, info_);
    check_size(height, png_get_image_width(png_, info_), max_pixels);
    constexpr uint64_t kMostBytesOfOne = 1032;  // By deflate.
    check_length(uint64_t{height} * png_get_rowbytes(png_, info_) / kMostBytesOfOne, bytes_.size());
  }

  DecodedImage read_pixels() {
    DecodedImage image{.height = png_get_image_height(png_, info_),
                       .width = png_get_image_width(png_, info_),
                       .rgb = {}};
    image.rgb.resize(static_cast<size_t>(image.height * image.width) * kChannels);
    uint8_t* const rgb = image.rgb.data();
    const size_t row_size = static_cast<size_t>(image.width) * kChannels;
    const auto height = static_cast<size_t>(image.height);
    guarded([this, rgb, row_size, height] {
      const int passes = choose_transforms();
      png_read_update_info(png_, info_);
      if (png_get_rowbytes(png_, info_) > row_size) fail_with("is damaged: its rows are too long");
      for (int pass = 0; pass < passes; ++pass) {
        for (size_t y = 0; y < height; ++y) png_read_row(png_, rgb + y * row_size, nullptr);
      }
      png_read_end(png_, info_);
    });
    spread(image);
    image.orientation = orientation();
    return image;
  }

 private:
  template <typename Calls>
  void guarded(const Calls& calls) {
    if (setjmp(jump_) != 0) throw ImageError(message_.data());
    calls();
  }

  // Texts and colour profiles are neither needed nor unpacked.
  void keep_exif_alone() {
    constexpr auto kExif = std::to_array<png_byte>({'e', 'X', 'I', 'f', '\0'});
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_AS_DEFAULT, kExif.data(), 1);
  }

  bool has(int type) const { return png_get_color_type(png_, info_) == type; }
  bool is_grey16() const {
    return has(PNG_COLOR_TYPE_GRAY) && png_get_bit_depth(png_, info_) == 16;
  }

  // Leaves at most three bytes a pixel. Returns how often rows are read: seven times if interlaced.
  int choose_transforms() {
    if (has(PNG_COLOR_TYPE_GRAY)) png_set_expand_gray_1_2_4_to_8(png_);
    if (has(PNG_COLOR_TYPE_PALETTE)) png_set_packing(png_);
    if (!is_grey16()) png_set_strip_16(png_);
    png_set_strip_alpha(png_);
    return png_set_interlace_handling(png_);
  }

  // Rows begin where they shall, but their pixels may be shorter than RGB.
  void spread(DecodedImage& image) const {
    const size_t channels = has(PNG_COLOR_TYPE_RGB) || has(PNG_COLOR_TYPE_RGBA) ? 3
                            : is_grey16()                                       ? 2
                                                                                : 1;
    if (channels == 3) return;
    const auto colors = colors_of_bytes();
    const auto width = static_cast<size_t>(image.width);
    for (size_t y = 0; y < static_cast<size_t>(image.height); ++y) {
      uint8_t* const row = image.rgb.data() + y * width * kChannels;
      for (size_t x = width; x-- > 0;) {  // From the end, as it grows in its place.
        const uint8_t* const pixel = row + x * channels;
        const uint8_t byte = channels == 1 ? pixel[0] : pixel[0] != 0 ? 255 : pixel[1];
        std::ranges::copy(colors[byte], row + x * kChannels);
      }
    }
  }

  std::array<std::array<uint8_t, 3>, 256> colors_of_bytes() const {
    std::array<std::array<uint8_t, 3>, 256> colors{};
    if (!has(PNG_COLOR_TYPE_PALETTE)) {
      for (size_t i = 0; i < colors.size(); ++i) colors[i].fill(static_cast<uint8_t>(i));
      return colors;
    }
    png_colorp palette = nullptr;
    int size = 0;
    png_get_PLTE(png_, info_, &palette, &size);
    for (size_t i = 0; i < static_cast<size_t>(size); ++i) {
      colors[i] = {palette[i].red, palette[i].green, palette[i].blue};
    }
    return colors;
  }

  int orientation() const {
    png_bytep exif = nullptr;
    png_uint_32 size = 0;
    if (png_get_eXIf_1(png_, info_, &size, &exif) == 0) return 1;
    return exif_orientation(std::as_bytes(std::span(exif, size)));
  }

  static void read(png_structp png, png_bytep target, size_t size) {
    auto& reader = *static_cast<PngReader*>(png_get_io_ptr(png));
    if (reader.rest_.size() < size) reader.fail_with("is truncated: more bytes must follow");
    std::memcpy(target, reader.rest_.data(), size);
    reader.rest_ = reader.rest_.subspan(size);
  }

  [[noreturn]] static void fail(png_structp png, png_const_charp text) {
    auto& reader = *static_cast<PngReader*>(png_get_error_ptr(png));
    std::snprintf(reader.message_.data(), reader.message_.size(), "is damaged: %s", text);
    std::longjmp(reader.jump_, 1);
  }

  [[noreturn]] void fail_with(const char* text) {
    std::snprintf(message_.data(), message_.size(), "%s", text);
    std::longjmp(jump_, 1);
  }

  static void ignore(png_structp, png_const_charp) {}

  std::span<const std::byte> bytes_;
  std::span<const std::byte> rest_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  std::jmp_buf jump_{};
  std::array<char, 256> message_{};
};

}  // namespace

bool is_png(std::span<const std::byte> bytes) {
  constexpr std::array<uint8_t, 8> kStart{0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  return bytes.size() >= kStart.size() &&
         std::memcmp(bytes.data(), kStart.data(), kStart.size()) == 0;
}

DecodedImage decode_png(std::span<const std::byte> bytes, int64_t max_pixels) {
  PngReader reader(bytes);
  reader.read_header();
  reader.check(max_pixels);
  return reader.read_pixels();
}

}  // namespace gemma
