#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <png.h>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include <gemma/image/orientation.h>
#include <gemma/image/png.h>
#include <gemma/image/png_metadata.h>

namespace gemma {
namespace {

constexpr size_t kChannels = 3;
constexpr std::string_view kSignature = "\x89PNG\r\n\x1a\n";
constexpr size_t kMaxTextSize = size_t{1} << 20;  // Pillow refuses files with longer ones.

// libpng leaves a call that fails by longjmp. So such calls are made in guarded() alone, by
// functions that have nothing to destroy; what has, is a member here, or belongs to a caller.
class PngReader {
 public:
  explicit PngReader(std::span<const std::byte> bytes) : bytes_(bytes), rest_(bytes) {}
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  void read_header() {
    open();
    guarded([this] {
      png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // check() has the limit.
      // Neither texts nor colour profiles are needed or unpacked.
      png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
      png_read_info(png_, info_);
    });
  }

  // The first text before the pixels; empty if there is none, or libpng cannot unpack it.
  std::string read_text() {
    open();
    guarded([this] {
      png_set_crc_action(png_, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
      png_set_chunk_malloc_max(png_, kMaxTextSize);
      png_read_info(png_, info_);
    });
    png_textp texts = nullptr;
    int count = 0;
    png_get_text(png_, info_, &texts, &count);
    return count > 0 ? std::string(texts->text, texts->text_length) : std::string();
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
    return image;
  }

 private:
  template <typename Calls>
  void guarded(const Calls& calls) {
    if (setjmp(jump_) != 0) throw ImageError(message_.data());
    calls();
  }

  void open() {
    guarded([this] {
      png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, fail, ignore);
      if (png_ == nullptr) fail_with("cannot be read: no memory for libpng");
      info_ = png_create_info_struct(png_);
      if (info_ == nullptr) fail_with("cannot be read: no memory for libpng");
      png_set_read_fn(png_, this, read);
    });
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

// A chunk without its checksum, which read_text() does not verify.
std::string unsigned_chunk(std::string_view type, std::string_view data) {
  const auto size = static_cast<uint32_t>(data.size());
  std::string chunk;
  for (int shift = 24; shift >= 0; shift -= 8) chunk += static_cast<char>(size >> shift);
  return chunk.append(type).append(data).append(4, '\0');
}

// Unpacked by libpng, which is linked already and zlib is not: as the text of a picture that has
// no pixels. Empty if damaged: a picture is not lost for its metadata.
std::string inflated(std::string_view stream) {
  constexpr std::string_view kOneGreyPixel("\0\0\0\1\0\0\0\1\x08\0\0\0\0", 13);
  constexpr std::string_view kKeyword("text\0\0", 6);
  const std::string file = std::string(kSignature) + unsigned_chunk("IHDR", kOneGreyPixel) +
                           unsigned_chunk("zTXt", std::string(kKeyword).append(stream)) +
                           unsigned_chunk("IDAT", {});
  try {
    return PngReader(std::as_bytes(std::span(file))).read_text();
  } catch (const ImageError&) {
    return {};
  }
}

std::string content_of(const PngText& text) {
  return text.is_compressed ? inflated(text.bytes) : std::string(text.bytes);
}

int orientation_in(std::span<const std::byte> bytes) {
  const PngMetadata metadata = png_metadata(bytes);
  std::string exif(metadata.exif.value_or(""));
  if (!metadata.exif && metadata.raw_profile) {
    exif = exif_of_raw_profile(content_of(*metadata.raw_profile));
  }
  return orientation_of(exif, content_of(metadata.xmp));
}

}  // namespace

bool is_png(std::span<const std::byte> bytes) {
  return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size())
      .starts_with(kSignature);
}

DecodedImage decode_png(std::span<const std::byte> bytes, int64_t max_pixels) {
  PngReader reader(bytes);
  reader.read_header();
  reader.check(max_pixels);
  DecodedImage image = reader.read_pixels();
  image.orientation = orientation_in(bytes);
  return image;
}

}  // namespace gemma
