#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string_view>

#include <gemma/checkpoint/bytes.h>

// What the fuzz targets ask of every reader.
namespace gemma::fuzz {

/// A false condition is a finding.
inline void require(bool condition) {
  if (!condition) __builtin_trap();
}

/// A reader's refusal is one line that a terminal can show.
inline void check_message(std::string_view message) {
  require(message.find_first_of("\n\r\x1b") == std::string_view::npos);
  require(message.size() < 2000);
}

/// Calls `parse`, which may answer or throw std::runtime_error with such a message.
template <typename Parse>
void run(Parse parse) {
  try {
    parse();
  } catch (const std::runtime_error& error) {
    check_message(error.what());
  }
}

/// Reads every byte, so that a range outside the input is a report of the address sanitizer.
inline void touch(Bytes bytes) {
  uint64_t sum = 0;
  for (const std::byte byte : bytes) sum += std::to_integer<uint64_t>(byte);
  [[maybe_unused]] volatile const uint64_t keep = sum;
}

}  // namespace gemma::fuzz
