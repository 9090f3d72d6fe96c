#pragma once

#include <cstdint>

#include <gemma/checkpoint/bytes.h>

namespace gemma {

/// The checksum that zip archives carry: `bytes` after those that gave `before`.
uint32_t crc32(Bytes bytes, uint32_t before = 0);

}  // namespace gemma
