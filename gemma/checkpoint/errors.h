#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

#include <gemma/errors.h>

namespace gemma {

/// What is wrong with some bytes, in words that do not name the file: parsers see bytes only, and
/// the function that was given the path puts it in front.
struct FormatError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// "<path>: <what>", the form of every message about a file.
std::string about_file(std::string_view path, std::string_view what);

/// Throws std::runtime_error(about_file(path, what)): the file is not what it should be.
[[noreturn]] void refuse_file(std::string_view path, std::string_view what);

/// Throws std::invalid_argument, "<path>: tensor '<name>' <what>": it cannot be written there.
[[noreturn]] void refuse_tensor(std::string_view path,
                                std::string_view name,
                                std::string_view what);

/// Names come out of files nobody vouches for: bytes outside printable ASCII become \xNN, so that a
/// message stays one line and cannot drive a terminal; what exceeds `limit` bytes is cut off.
std::string printable(std::string_view text, size_t limit = 100);

}  // namespace gemma
