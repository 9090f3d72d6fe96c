#pragma once

#include <string_view>

#include <gemma/checkpoint/bytes.h>

namespace gemma {

/// When `file` is recognisably something that holds no weights this reads: what it is and what to
/// do about it. Empty when it is not recognised.
std::string_view foreign_format(Bytes file);

}  // namespace gemma
