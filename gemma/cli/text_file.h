#pragma once

#include <string>
#include <string_view>

namespace gemma::cli {

/// The text of a file, or of standard input for "-" (if `or_input`), as UTF-8: a byte order mark
/// goes, UTF-16 with one is converted, CR LF becomes LF. Throws std::runtime_error, one line that
/// begins with `flag` and the path, when it cannot be read or is neither: the byte where UTF-8 ends
/// and the cure.
std::string read_text_file(std::string_view flag, const std::string& path, bool or_input = true);

/// `text` if it is UTF-8. Throws std::invalid_argument, one line that begins with `flag`.
const std::string& checked_utf8(std::string_view flag, const std::string& text);

}  // namespace gemma::cli
