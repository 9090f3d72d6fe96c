#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>  // jpeglib.h wants FILE.
#include <jerror.h>
#include <jpeglib.h>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include <gemma/image/jpeg.h>
#include <gemma/image/orientation.h>

namespace gemma {
namespace {

constexpr int kApp1 = JPEG_APP0 + 1;
constexpr unsigned kMaxMarkerSize = 0xffff;
// Programs write some ten; each is a pass over all pixels, however few its bytes are.
constexpr int kMaxScans = 100;

// As Pillow multiplies: a * b / 255, rounded.
unsigned multiplied(unsigned a, unsigned b) {
  const unsigned product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

// Adobe's programs store the complement of each ink, and no file says whether one did not.
void cmyk_to_rgb(const uint8_t* cmyk, uint8_t* rgb, int64_t width) {
  for (int64_t x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
    const unsigned white = cmyk[3];
    for (size_t c = 0; c < 3; ++c) {
      rgb[c] = static_cast<uint8_t>(white - multiplied(255U - cmyk[c], white));
    }
  }
}

// libjpeg leaves a call that fails by longjmp. So such calls are made in guarded() alone, by
// functions that have nothing to destroy; what has, is a member here, or belongs to a caller.
class JpegReader {
 public:
  explicit JpegReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  ~JpegReader() { jpeg_destroy_decompress(&info_); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  void read_header() {
    info_.err = jpeg_std_error(&errors_);
    info_.client_data = this;
    errors_.error_exit = fail;
    errors_.emit_message = warn;
    progress_.progress_monitor = count_scans;
    guarded([this] {
      jpeg_create_decompress(&info_);
      info_.progress = &progress_;
      jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes_.data()),
                   static_cast<unsigned long>(bytes_.size()));
      jpeg_save_markers(&info_, kApp1, kMaxMarkerSize);
      jpeg_read_header(&info_, TRUE);
    });
  }

  void check(int64_t max_pixels) const {
    check_size(info_.image_height, info_.image_width, max_pixels);
    const int components = info_.num_components;
    if (components != 1 && components != 3 && components != 4) {
      throw ImageError(fmt::format("has {} colour components; save it as RGB", components));
    }
    // Of each 8 x 8 pixels at least one bit is stored, but by arithmetic coding.
    const uint64_t pixels = uint64_t{info_.image_height} * info_.image_width;
    if (info_.arith_code == FALSE) check_length(pixels / 64 / 8, bytes_.size());
  }

  DecodedImage read_pixels() {
    DecodedImage image{.height = info_.image_height, .width = info_.image_width, .rgb = {}};
    image.orientation = orientation();
    image.rgb.resize(static_cast<size_t>(image.height * image.width * 3));
    const bool is_cmyk = info_.num_components == 4;
    if (is_cmyk) cmyk_.resize(static_cast<size_t>(image.width * 4));
    uint8_t* const rgb = image.rgb.data();
    guarded([this, rgb, is_cmyk] {
      info_.out_color_space = is_cmyk ? JCS_CMYK : JCS_RGB;
      jpeg_start_decompress(&info_);
      while (info_.output_scanline < info_.output_height) read_row(rgb, is_cmyk);
      jpeg_finish_decompress(&info_);
    });
    return image;
  }

 private:
  template <typename Calls>
  void guarded(const Calls& calls) {
    if (setjmp(jump_) != 0) throw ImageError(message_.data());
    calls();
  }

  void read_row(uint8_t* rgb, bool is_cmyk) {
    const int64_t width = info_.output_width;
    uint8_t* const row = rgb + info_.output_scanline * width * 3;
    JSAMPROW target = is_cmyk ? cmyk_.data() : row;
    jpeg_read_scanlines(&info_, &target, 1);
    if (is_cmyk) cmyk_to_rgb(cmyk_.data(), row, width);
  }

  // As Pillow: Exif may be cut into several segments, and of XMP the last counts.
  int orientation() const {
    constexpr std::string_view kExif("Exif\0\0", 6);
    constexpr std::string_view kXmp("http://ns.adobe.com/xap/1.0/\0", 29);
    std::string exif;
    std::string_view xmp;
    for (const auto* marker = info_.marker_list; marker != nullptr; marker = marker->next) {
      const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
      if (data.starts_with(kExif)) exif += exif.empty() ? data : data.substr(kExif.size());
      if (data.starts_with(kXmp)) xmp = data.substr(kXmp.size());
    }
    return orientation_of(exif, xmp);
  }

  static JpegReader& reader_of(j_common_ptr info) {
    return *static_cast<JpegReader*>(info->client_data);
  }

  [[noreturn]] static void fail(j_common_ptr info) {
    JpegReader& reader = reader_of(info);
    const bool is_end = info->err->msg_code == JWRN_JPEG_EOF;
    std::array<char, JMSG_LENGTH_MAX> text{};
    info->err->format_message(info, text.data());
    std::snprintf(reader.message_.data(), reader.message_.size(), "is %s: %s",
                  is_end ? "truncated" : "damaged", text.data());
    std::longjmp(reader.jump_, 1);
  }

  // libjpeg goes on with grey where data is lost; of other oddities nothing is seen in the picture.
  static void warn(j_common_ptr info, int level) {
    if (level >= 0) return;
    switch (info->err->msg_code) {
      case JWRN_JPEG_EOF:
      case JWRN_HIT_MARKER:
      case JWRN_HUFF_BAD_CODE:
      case JWRN_MUST_RESYNC:
        fail(info);
      default:
        break;
    }
  }

  static void count_scans(j_common_ptr info) {
    JpegReader& reader = reader_of(info);
    if (reader.info_.input_scan_number <= kMaxScans) return;
    std::snprintf(reader.message_.data(), reader.message_.size(),
                  "is stored in more than %d scans; save it anew", kMaxScans);
    std::longjmp(reader.jump_, 1);
  }

  std::span<const std::byte> bytes_;
  jpeg_decompress_struct info_{};
  jpeg_error_mgr errors_{};
  jpeg_progress_mgr progress_{};
  std::jmp_buf jump_{};
  std::array<char, JMSG_LENGTH_MAX + 32> message_{};
  std::vector<uint8_t> cmyk_;
};

}  // namespace

bool is_jpeg(std::span<const std::byte> bytes) {
  constexpr std::array kStart{std::byte{0xff}, std::byte{0xd8}, std::byte{0xff}};
  return bytes.size() >= kStart.size() && std::ranges::equal(bytes.first(kStart.size()), kStart);
}

DecodedImage decode_jpeg(std::span<const std::byte> bytes, int64_t max_pixels) {
  JpegReader reader(bytes);
  reader.read_header();
  reader.check(max_pixels);
  return reader.read_pixels();
}

}  // namespace gemma
