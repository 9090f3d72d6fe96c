#pragma once

#include <utility>

#include <fmt/format.h>

#include <gemma/checkpoint/errors.h>

// Apart from errors.h, which is installed: users of the library need not have fmt.
namespace gemma {

template <typename... Args>
[[noreturn]] void format_error(fmt::format_string<Args...> text, Args&&... args) {
  throw FormatError(fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace gemma
