#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <gemma/server/api_error.h>

namespace gemma::server {

/// An answer: its fields stay in order.
using Json = nlohmann::ordered_json;
/// A request. (An object of the above is searched from its beginning.)
using JsonValue = nlohmann::json;

/// On one line, in ASCII, so that no reader of lines or of encodings goes wrong; what is no UTF-8
/// becomes U+FFFD.
std::string to_text(const Json& value);

/// A request's body. Throws ApiError for what is no JSON object, and for lists and objects that are
/// nested more than 64 deep.
JsonValue parse_body(std::string_view body);

/// The fields of an object of a request. What has a wrong type or lies outside of its limits throws
/// ApiError, which names the field. A field that is null is not there.
class Fields {
 public:
  /// `path` names the object in errors: "messages[0]."; empty for the request itself.
  explicit Fields(const JsonValue& object, std::string path = {});

  const JsonValue* find(const char* name) const;
  std::optional<double> number(const char* name, double least, double most) const;
  std::optional<int64_t> integer(const char* name, int64_t least, int64_t most) const;
  std::optional<bool> boolean(const char* name) const;
  std::optional<std::string> text(const char* name) const;
  /// A text, or a list of them.
  std::vector<std::string> texts(const char* name) const;

  [[noreturn]] void refuse(const char* name,
                           const JsonValue& value,
                           std::string_view expected) const;
  std::string path_of(const char* name) const { return path_ + name; }

 private:
  const JsonValue& object_;
  std::string path_;
};

/// The tokens of a list. Throws ApiError, which names `path`, for anything else.
std::vector<int64_t> tokens_of(const JsonValue& list, const std::string& path, int64_t vocab_size);

/// Throws ApiError: `value` is not what is expected of `path`.
[[noreturn]] void refuse_value(const std::string& path,
                               const JsonValue& value,
                               std::string_view expected);

}  // namespace gemma::server
