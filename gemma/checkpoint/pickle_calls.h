#pragma once

#include <string_view>
#include <variant>
#include <vector>

#include <gemma/checkpoint/format_error.h>
#include <gemma/checkpoint/pickle.h>

// What a pickle may refer to, and what comes of a call of it. Nothing is called: each "function" is
// a row of a table, and its result is one of our own values.
namespace gemma::pickle {

/// The kinds of things that torch.load(weights_only=True) reads, and that are no weights.
inline constexpr Opaque kOther{"value"};
inline constexpr Opaque kInteger{"int"};
inline constexpr Opaque kString{"str"};
inline constexpr Opaque kBytes{"bytes"};
inline constexpr Opaque kByteArray{"bytearray"};
inline constexpr Opaque kSet{"set"};
inline constexpr Opaque kFrozen{"frozenset"};

/// Throws FormatError for a name that torch.load(weights_only=True) does not know either.
Global find_global(std::string_view module, std::string_view name);

/// The result of function(*arguments); what it points at is the pickle's. Throws FormatError for
/// arguments that the function does not have.
Value call(Pickle& pickle, const Global& function, const Value& arguments);

/// The T in `value`. Throws FormatError, "<what> is of type <its>, not <wanted>".
template <typename T>
T expect(const Value& value, std::string_view what, std::string_view wanted) {
  const T* const held = std::get_if<T>(&value);
  if (held == nullptr) format_error("{} is of type {}, not {}", what, type_name(value), wanted);
  return *held;
}

/// The arguments of a call: a tuple of `least` to `most` values. Throws FormatError.
const std::vector<Value>& expect_arguments(const Value& value,
                                           std::string_view function,
                                           size_t least,
                                           size_t most);

}  // namespace gemma::pickle
