#pragma once

#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace gemma::cli {

/// Gives each of the standard streams that the caller closed something to be, so that no file that
/// is opened later takes its number: writing to standard output fails, the others are /dev/null.
void open_standard_streams();

/// Writes to standard output. Throws std::runtime_error when it cannot be written to.
void write_output(std::string_view text);

/// Waits until standard output has everything. Throws std::runtime_error when it cannot be written
/// to: a full disk, a closed stream.
void flush_output();

/// Writes to standard error, where nobody may be listening: what cannot be written is lost.
void write_note(std::string_view text) noexcept;

/// The result of a command, to standard output.
template <typename... Args>
void show(fmt::format_string<Args...> format, Args&&... args) {
  write_output(fmt::format(format, std::forward<Args>(args)...));
}

/// What a command says besides its result, to standard error.
template <typename... Args>
void note(fmt::format_string<Args...> format, Args&&... args) {
  write_note(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace gemma::cli
