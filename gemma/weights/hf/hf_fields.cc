#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/weights/hf/hf_fields.h>

namespace gemma {
namespace {

using nlohmann::json;

constexpr size_t kMaxBytes = size_t{1} << 20;
constexpr int kMaxDepth = 32;
// Products of two fit 64 bits with the dtype's size.
constexpr int64_t kMaxNumber = int64_t{1} << 40;

// What multiplies by one changes nothing.
bool is_factor(std::string_view name) {
  constexpr std::array<std::string_view, 3> kWords = {"scal", "factor", "multiplier"};
  return std::ranges::any_of(kWords, [&](auto word) { return name.find(word) != name.npos; });
}

bool is_neutral(std::string_view name, const json& value) {
  if (value.is_number()) return value == 0 || (value == 1 && is_factor(name));
  return value == false || value.empty() || value == "";
}

json parsed(std::string_view text, const std::string& path) {
  const auto refuse = [&](std::string_view what) { refuse_file(path, what); };
  if (text.size() > kMaxBytes) {
    refuse(fmt::format("it has {} bytes, more than {}", text.size(), kMaxBytes));
  }
  const auto callback = [&](int depth, json::parse_event_t, json&) {
    if (depth > kMaxDepth) refuse(fmt::format("it is nested more than {} deep", kMaxDepth));
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), callback);
  } catch (const json::exception& error) {
    const auto* const parsing = dynamic_cast<const json::parse_error*>(&error);
    refuse_file(path,
                parsing == nullptr
                    ? "it has a number that is too large"
                    : fmt::format("it is not JSON (at byte {}): download it again", parsing->byte));
  }
}

}  // namespace

json parse_fields(std::string_view text, const std::string& path) {
  auto value = parsed(text, path);
  if (!value.is_object()) refuse_file(path, "it is not an object of fields");
  return value;
}

json parse_list(std::string_view text, const std::string& path) {
  auto value = parsed(text, path);
  if (!value.is_array()) refuse_file(path, "it is not a list");
  return value;
}

Fields::Fields(const json& object, std::string path, std::string prefix)
    : object_(object), path_(std::move(path)), prefix_(std::move(prefix)) {}

void Fields::refuse(std::string_view field, std::string_view what) const {
  refuse_file(path_, fmt::format("'{}{}' {}", prefix_, printable(field), what));
}

const json* Fields::find(std::string_view field) const {
  const auto found = object_.find(field);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<double> Fields::number(std::string_view field) const {
  const auto* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number() || !(value->get<double>() > 0)) {
    refuse(field, fmt::format("is {}, not a number above 0", shown(*value)));
  }
  return value->get<double>();
}

std::optional<int64_t> Fields::whole(std::string_view field) const {
  const auto value = number(field);
  if (!value) return std::nullopt;
  if (*value != std::floor(*value) || *value > static_cast<double>(kMaxNumber)) {
    refuse(field, fmt::format("is {}, not a whole number up to 2^40", shown(*find(field))));
  }
  return static_cast<int64_t>(*value);
}

std::optional<std::string> Fields::text(std::string_view field) const {
  const auto* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) refuse(field, fmt::format("is {}, not a string", shown(*value)));
  return value->get<std::string>();
}

bool Fields::flag(std::string_view field) const {
  const auto* value = find(field);
  if (value == nullptr) return false;
  if (!value->is_boolean()) refuse(field, fmt::format("is {}, not true or false", shown(*value)));
  return value->get<bool>();
}

std::optional<Fields> Fields::object(std::string_view field) const {
  const auto* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) refuse(field, fmt::format("is {}, not an object", shown(*value)));
  return Fields(*value, path_, fmt::format("{}{}.", prefix_, field));
}

void Fields::check_others(std::span<const std::string_view> known,
                          std::span<const std::string_view> words) const {
  for (const auto& [name, value] : object_.items()) {
    const auto is_in_name = [&](std::string_view word) {
      return name.find(word) != std::string::npos;
    };
    if (std::ranges::count(known, name) > 0 || std::ranges::none_of(words, is_in_name)) continue;
    if (is_neutral(name, value)) continue;
    refuse(name, fmt::format("is {}, which no Gemma 1, 2 or 3 has", shown(value)));
  }
}

std::string Fields::shown(const json& value) {
  // With other than ASCII escaped, and not failing on bytes that are no UTF-8.
  return printable(value.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace));
}

}  // namespace gemma
