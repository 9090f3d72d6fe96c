#include <cstdint>
#include <string_view>

#include <gemma/image/exif.h>

namespace gemma {
namespace {

using namespace std::string_view_literals;

// TIFF 6.0: numbers in the byte order that the first two bytes name.
class Tiff {
 public:
  Tiff(std::string_view bytes, bool is_big_endian) : bytes_(bytes), is_big_endian_(is_big_endian) {}

  // The number of `size` bytes at `at`; 0 where the data ends before.
  uint32_t number(uint64_t at, size_t size) const {
    if (at > bytes_.size() || bytes_.size() - at < size) return 0;
    uint32_t value = 0;
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

uint32_t orientation_of(const Tiff& tiff) {
  constexpr uint32_t kOrientation = 0x0112;
  constexpr uint64_t kEntrySize = 12;
  const uint64_t directory = tiff.number(4, 4);
  const uint32_t entries = tiff.number(directory, 2);
  for (uint64_t i = 0; i < entries; ++i) {
    const uint64_t entry = directory + 2 + i * kEntrySize;
    if (tiff.number(entry, 2) != kOrientation) continue;
    switch (tiff.number(entry + 2, 2)) {
      case 1:  // BYTE
        return tiff.number(entry + 8, 1);
      case 3:  // SHORT
        return tiff.number(entry + 8, 2);
      case 4:  // LONG
        return tiff.number(entry + 8, 4);
      default:
        return 1;
    }
  }
  return 1;
}

}  // namespace

int exif_orientation(std::span<const std::byte> exif) {
  constexpr auto kPrefix = "Exif\0\0"sv;
  std::string_view bytes(reinterpret_cast<const char*>(exif.data()), exif.size());
  while (bytes.starts_with(kPrefix)) bytes.remove_prefix(kPrefix.size());
  if (!bytes.starts_with("II*\0"sv) && !bytes.starts_with("MM\0*"sv)) return 1;
  const uint32_t orientation = orientation_of(Tiff(bytes, bytes.front() == 'M'));
  return orientation >= 1 && orientation <= 8 ? static_cast<int>(orientation) : 1;
}

}  // namespace gemma
