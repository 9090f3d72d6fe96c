#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include <gemma/checkpoint/format_error.h>

namespace gemma {

static_assert(std::endian::native == std::endian::little,
              "zip, pickle and tensor data are little-endian and are read without swapping");

using Bytes = std::span<const std::byte>;

/// Whether [offset, offset + size) lies within [0, limit), for numbers that may be anything.
constexpr bool fits(uint64_t offset, uint64_t size, uint64_t limit) {
  return size <= limit && offset <= limit - size;
}

/// Throws FormatError naming `what` when the range leaves `bytes`.
inline Bytes slice(Bytes bytes, uint64_t offset, uint64_t size, std::string_view what) {
  if (!fits(offset, size, bytes.size())) {
    format_error("{} would take bytes {}+{} of {}", what, offset, size, bytes.size());
  }
  return bytes.subspan(offset, size);
}

/// The little-endian number at `offset`; throws as `slice` does.
template <typename T>
T load(Bytes bytes, uint64_t offset, std::string_view what) {
  T value;
  std::memcpy(&value, slice(bytes, offset, sizeof(T), what).data(), sizeof(T));
  return value;
}

inline std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace gemma
