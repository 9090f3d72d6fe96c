#include <array>

#include <gemma/checkpoint/crc32.h>

namespace gemma {
namespace {

constexpr uint32_t kPolynomial = 0xedb88320;  // Of IEEE 802.3, lowest bit first.
constexpr size_t kStep = 8;

// tables[k][b]: what byte b adds when k more bytes follow it. Eight at a time, as one table alone
// takes longer than the disk.
using Tables = std::array<std::array<uint32_t, 256>, kStep>;

constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < kStep; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t crc = tables[k - 1][byte];
      tables[k][byte] = (crc >> 8) ^ tables[0][crc & 0xff];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

}  // namespace

uint32_t crc32(Bytes bytes, uint32_t before) {
  uint32_t crc = ~before;
  size_t at = 0;
  for (; at + kStep <= bytes.size(); at += kStep) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + at, kStep);
    word ^= crc;
    crc = 0;
    for (size_t k = 0; k < kStep; ++k) {
      crc ^= kTables[kStep - 1 - k][(word >> (8 * k)) & 0xff];
    }
  }
  for (; at < bytes.size(); ++at) {
    crc = (crc >> 8) ^ kTables[0][(crc ^ static_cast<uint32_t>(bytes[at])) & 0xff];
  }
  return ~crc;
}

}  // namespace gemma
