#pragma once

#include <cstdint>

namespace gemma {

/// How the elements of a tensor stand in a file. Everything but kPlain is a block format of GGUF,
/// by its name there: blocks of some elements of a row, with scales of their own (gguf_blocks.h).
enum class Encoding : uint8_t {
  kPlain,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4K,
  kQ5K,
  kQ6K,
  kIq4Nl,
};

}  // namespace gemma
