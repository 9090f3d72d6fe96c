#include <array>
#include <bit>
#include <cstdint>
#include <optional>

#include <gemma/image/orientation.h>

namespace gemma {
namespace {

using namespace std::string_view_literals;

constexpr int kUpright = 1;

// TIFF 6.0: numbers in the byte order that the first two bytes name.
class Tiff {
 public:
  explicit Tiff(std::string_view bytes) : bytes_(bytes), is_big_endian_(bytes.front() == 'M') {}

  uint64_t size() const { return bytes_.size(); }
  bool has(uint64_t at, uint64_t size) const {
    return at <= bytes_.size() && size <= bytes_.size() - at;
  }

  // The number of `size` bytes at `at`; 0 where the data ends before.
  uint64_t number(uint64_t at, size_t size) const {
    if (!has(at, size)) return 0;
    uint64_t value = 0;
    for (size_t i = 0; i < size; ++i) {
      const size_t place = is_big_endian_ ? i : size - 1 - i;
      value = value << 8 | static_cast<uint8_t>(bytes_[at + place]);
    }
    return value;
  }

 private:
  std::string_view bytes_;
  bool is_big_endian_;
};

enum Type : uint64_t {
  kShort = 3,
  kLong = 4,
  kRational = 5,
  kSignedByte = 6,
  kSignedShort = 8,
  kSignedLong = 9,
  kFloat = 11,
  kDouble = 12,
  kIfd = 13,
  kLong8 = 16,
};

// Bytes of one value; 0 for an unknown type.
size_t size_of(uint64_t type) {
  constexpr std::array<uint8_t, 17> kSizes{0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8};
  return type < kSizes.size() ? kSizes[type] : 0;
}

// Pillow takes any number that equals an orientation, but neither bytes nor text.
double value_of(const Tiff& tiff, uint64_t type, uint64_t at) {
  switch (type) {
    case kShort:
    case kLong:
    case kSignedByte:
    case kSignedShort:
    case kSignedLong:
    case kIfd:
    case kLong8:
      return static_cast<double>(tiff.number(at, size_of(type)));
    case kRational:
      return static_cast<double>(tiff.number(at, 4)) / static_cast<double>(tiff.number(at + 4, 4));
    case kFloat:
      return std::bit_cast<float>(static_cast<uint32_t>(tiff.number(at, 4)));
    case kDouble:
      return std::bit_cast<double>(tiff.number(at, 8));
    default:
      return kUpright;
  }
}

// As Pillow reads a directory: an entry that claims more than the data has is passed over, one
// whose values lie beyond the end is the last that is read.
std::optional<double> orientation_entry(const Tiff& tiff) {
  constexpr uint64_t kOrientation = 0x0112;
  constexpr uint64_t kEntrySize = 12;
  const uint64_t directory = tiff.number(4, 4);
  const uint64_t entries = tiff.number(directory, 2);
  uint64_t claimed = 0;
  for (uint64_t i = 0; i < entries; ++i) {
    const uint64_t entry = directory + 2 + i * kEntrySize;
    if (!tiff.has(entry, kEntrySize)) break;
    const uint64_t type = tiff.number(entry + 2, 2);
    const uint64_t size = tiff.number(entry + 4, 4) * size_of(type);
    if (size == 0) continue;
    uint64_t at = entry + 8;
    if (size > 4) {
      claimed += size;
      if (claimed > tiff.size()) continue;
      at = tiff.number(at, 4);
      if (!tiff.has(at, size)) break;
    }
    if (tiff.number(entry, 2) == kOrientation) return value_of(tiff, type, at);
  }
  return std::nullopt;
}

// Pillow's prefixes: of these the last three are not TIFF's, but are met.
bool is_tiff(std::string_view bytes) {
  for (const auto prefix : {"II*\0"sv, "MM\0*"sv, "II\0*"sv, "MM*\0"sv, "MM\0+"sv}) {
    if (bytes.starts_with(prefix)) return bytes.size() >= 8;
  }
  return false;
}

std::optional<double> exif_orientation(std::string_view exif) {
  constexpr auto kPrefix = "Exif\0\0"sv;
  for (int i = 0; i < 2 && exif.starts_with(kPrefix); ++i) exif.remove_prefix(kPrefix.size());
  if (exif.empty()) return std::nullopt;
  return is_tiff(exif) ? orientation_entry(Tiff(exif)) : kUpright;
}

// An attribute or an element, wherever it stands: tiff:Orientation="6", <tiff:Orientation>6.
double xmp_orientation(std::string_view xmp) {
  constexpr auto kName = "tiff:Orientation"sv;
  for (size_t at = xmp.find(kName); at != xmp.npos; at = xmp.find(kName)) {
    xmp.remove_prefix(at + kName.size());
    std::string_view value = xmp;
    if (value.starts_with("=\"")) {
      value.remove_prefix(2);
    } else if (value.starts_with(">")) {
      value.remove_prefix(1);
    } else {
      continue;
    }
    if (!value.empty() && value.front() >= '0' && value.front() <= '9') return value.front() - '0';
  }
  return kUpright;
}

std::optional<int> hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

}  // namespace

int orientation_of(std::string_view exif, std::string_view xmp) {
  const auto found = exif_orientation(exif);
  const double value = found ? *found : xmp_orientation(xmp);
  for (int orientation = 1; orientation <= 8; ++orientation) {
    if (value == orientation) return orientation;
  }
  return kUpright;
}

std::string exif_of_raw_profile(std::string_view text) {
  for (int line = 0; line < 3; ++line) {
    const size_t end = text.find('\n');
    if (end == text.npos) return {};
    text.remove_prefix(end + 1);
  }
  std::string bytes;
  std::optional<int> high;
  for (const char c : text) {
    if (" \t\n\v\f\r"sv.find(c) != std::string_view::npos) continue;
    const auto digit = hex_digit(c);
    if (!digit) return {};
    if (high) bytes += static_cast<char>(*high << 4 | *digit);
    high = high ? std::nullopt : digit;
  }
  return high ? std::string() : bytes;
}

}  // namespace gemma
