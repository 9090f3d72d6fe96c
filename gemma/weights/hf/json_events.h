#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace gemma {

/// The keys on the way to a value, from the outermost object; "[]" for each list on that way.
using JsonPath = std::vector<std::string>;

/// Called for the parts of a JSON text in their order. The text is read no further once one of them
/// returns false.
struct JsonEvents {
  /// A string, a number, true, false or null.
  std::function<bool(const JsonPath&, const nlohmann::json&)> on_value;
  /// The end of an object or a list.
  std::function<bool(const JsonPath&)> on_end;
};

/// Reads a JSON text without keeping it, for files of many megabytes. Throws FormatError when it is
/// not JSON, or is nested more than 32 deep.
void read_json(std::string_view text, const JsonEvents& events);

/// "added_tokens.[].id".
std::string joined(const JsonPath& path);

}  // namespace gemma
