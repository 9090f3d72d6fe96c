#include <utility>

#include <fmt/format.h>

#include <gemma/server/json.h>

namespace gemma::server {
namespace {

constexpr int kMaxDepth = 64;

// A list or an object is only named: it may be of any size.
std::string shown(const JsonValue& value) {
  constexpr size_t kMost = 40;
  if (value.is_array()) return "a list";
  if (value.is_object()) return "an object";
  auto text = value.dump(-1, ' ', /*ensure_ascii=*/true, JsonValue::error_handler_t::replace);
  if (text.size() > kMost) text = text.substr(0, kMost) + "...";
  return text;
}

// Before it is parsed: a parser that asks back looks through all of a list at each object of it.
void check_depth(std::string_view body) {
  int depth = 0;
  bool is_in_text = false;
  for (size_t i = 0; i < body.size(); ++i) {
    const char c = body[i];
    if (c == '"') is_in_text = !is_in_text;
    if (is_in_text) {
      if (c == '\\') ++i;
    } else if (c == '{' || c == '[') {
      if (++depth <= kMaxDepth) continue;
      throw ApiError(400, fmt::format("the body is nested more than {} deep", kMaxDepth),
                     "invalid_json");
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
}

}  // namespace

std::string to_text(const Json& value) {
  return value.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
}

JsonValue parse_body(std::string_view body) {
  check_depth(body);
  auto value = [&] {
    try {
      return JsonValue::parse(body);
    } catch (const JsonValue::parse_error& error) {
      throw ApiError(400, fmt::format("the body is no JSON: byte {} is unexpected", error.byte),
                     "invalid_json");
    } catch (const JsonValue::out_of_range& /*error*/) {  // 1e999.
      throw ApiError(400, "the body has a number that is too large", "invalid_json");
    }
  }();
  if (!value.is_object()) {
    throw ApiError(400, fmt::format("the body is {}, but must be an object", shown(value)),
                   "invalid_json");
  }
  return value;
}

void refuse_value(const std::string& path, const JsonValue& value, std::string_view expected) {
  throw ApiError::bad_field(path,
                            fmt::format("{} is {}, but must be {}", path, shown(value), expected));
}

std::vector<int64_t> tokens_of(const JsonValue& list, const std::string& path, int64_t vocab_size) {
  if (!list.is_array()) refuse_value(path, list, "a list of token ids");
  std::vector<int64_t> tokens;
  tokens.reserve(list.size());
  for (const auto& value : list) {
    // Written as it was sent: 2^63 and more are no int64.
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= static_cast<uint64_t>(vocab_size)) {
      refuse_value(path, value, fmt::format("token ids from 0 to {}", vocab_size - 1));
    }
    tokens.push_back(value.get<int64_t>());
  }
  return tokens;
}

Fields::Fields(const JsonValue& object, std::string path)
    : object_(object), path_(std::move(path)) {}

void Fields::refuse(const char* name, const JsonValue& value, std::string_view expected) const {
  refuse_value(path_of(name), value, expected);
}

const JsonValue* Fields::find(const char* name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<double> Fields::number(const char* name, double least, double most) const {
  const auto* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number() || value->get<double>() < least || value->get<double>() > most) {
    refuse(name, *value, fmt::format("a number from {:g} to {:g}", least, most));
  }
  return value->get<double>();
}

std::optional<int64_t> Fields::integer(const char* name, int64_t least, int64_t most) const {
  const auto* value = find(name);
  if (value == nullptr) return std::nullopt;
  const bool is_in_range = value->is_number_integer() &&
                           (value->is_number_unsigned()
                                ? std::cmp_less_equal(value->get<uint64_t>(), most) &&
                                      std::cmp_greater_equal(value->get<uint64_t>(), least)
                                : value->get<int64_t>() >= least && value->get<int64_t>() <= most);
  if (!is_in_range) refuse(name, *value, fmt::format("a whole number from {} to {}", least, most));
  return value->get<int64_t>();
}

std::optional<bool> Fields::boolean(const char* name) const {
  const auto* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) refuse(name, *value, "true or false");
  return value->get<bool>();
}

std::optional<std::string> Fields::text(const char* name) const {
  const auto* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) refuse(name, *value, "a text");
  return value->get<std::string>();
}

std::vector<std::string> Fields::texts(const char* name) const {
  const auto* value = find(name);
  if (value == nullptr) return {};
  if (value->is_string()) return {value->get<std::string>()};
  if (!value->is_array()) refuse(name, *value, "a text, or a list of them");
  std::vector<std::string> texts;
  for (const auto& text : *value) {
    if (!text.is_string()) refuse(name, text, "a text, or a list of them");
    texts.push_back(text.get<std::string>());
  }
  return texts;
}

}  // namespace gemma::server
