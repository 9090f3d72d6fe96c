#include <algorithm>
#include <array>
#include <initializer_list>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <gemma/text/json_schema.h>
#include <gemma/text/shortened.h>

namespace gemma {
namespace {

using Schema = nlohmann::ordered_json;  // Properties come in the order that they are written in.
using Names = std::initializer_list<const char*>;

constexpr size_t kMostBytes = 64 * 1024;
constexpr int kMostDepth = 32;
constexpr size_t kMostName = 60;  // In a message.

constexpr auto kUnsupported = std::to_array<const char*>(
    {"not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies",
     "contains", "minContains", "maxContains", "$dynamicRef", "$recursiveRef", "$anchor",
     "$dynamicAnchor"});
// Each says by itself what a value is; what stands beside it would not be looked at.
constexpr auto kWhole =
    std::to_array<const char*>({"$ref", "const", "enum", "anyOf", "oneOf", "allOf"});

struct TypeKeywords {
  const char* type;
  std::vector<const char*> keywords;
  std::vector<const char*> telling;  // Of them: those that stand for the type.
};

const std::vector<TypeKeywords>& type_keywords() {
  static const std::vector<TypeKeywords> kAll = {
      {"string", {"minLength", "maxLength", "pattern"}, {}},
      {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}, {}},
      {"object",
       {"properties", "required", "additionalProperties", "unevaluatedProperties",
        "patternProperties", "propertyNames", "minProperties", "maxProperties"},
       {"properties", "additionalProperties", "unevaluatedProperties"}},
      {"array",
       {"items", "prefixItems", "unevaluatedItems", "minItems", "maxItems"},
       {"items", "prefixItems", "unevaluatedItems"}},
  };
  return kAll;
}

[[noreturn]] void refuse(const std::string& path, std::string_view what) {
  throw std::invalid_argument(fmt::format("JSON Schema: {}: {}", path, what));
}

std::string path_below(const std::string& path, std::string_view name) {
  return fmt::format("{}/{}", path, shortened(name, kMostName));
}

bool has_any(const Schema& schema, const std::vector<const char*>& names) {
  return std::ranges::any_of(names, [&](const char* name) { return schema.contains(name); });
}

void check_supported(const Schema& schema, const std::string& path) {
  for (const auto* name : kUnsupported) {
    if (schema.contains(name)) refuse(path, fmt::format("{} is not supported", name));
  }
  if (schema.value("uniqueItems", Schema(false)) != false) {
    refuse(path, "uniqueItems is not supported");
  }
}

// What says what a value is, is alone with notes about it; a type may stand beside values.
void check_alone(const Schema& schema, const char* whole, const std::string& path) {
  const bool has_values = std::string_view(whole) == "const" || std::string_view(whole) == "enum";
  const auto refuse_beside = [&](const char* name) {
    refuse(path, fmt::format("{} beside {} is not supported", name, whole));
  };
  if (!has_values && schema.contains("type")) refuse_beside("type");
  for (const auto* other : kWhole) {
    if (other != std::string_view(whole) && schema.contains(other)) refuse_beside(other);
  }
  for (const auto& [type, keywords, telling] : type_keywords()) {
    for (const auto* name : keywords) {
      if (schema.contains(name)) refuse_beside(name);
    }
  }
}

void check_ref(const Schema& schema, const std::string& path) {
  const auto found = schema.find("$ref");
  if (found == schema.end()) return;
  const bool is_here = found->is_string() && found->get_ref<const std::string&>().starts_with('#');
  if (!is_here) refuse(path, "$ref must point into the same schema: \"#/$defs/name\"");
}

void check_typed(const Schema& schema, const std::string& path) {
  if (schema.contains("type")) return;
  for (const auto& [type, keywords, telling] : type_keywords()) {
    if (has_any(schema, telling)) continue;
    for (const auto* name : keywords) {
      if (schema.contains(name)) {
        refuse(path,
               fmt::format("{} has no effect without a type; add \"type\": \"{}\"", name, type));
      }
    }
  }
}

void check_required(const Schema& schema, const std::string& path) {
  const auto required = schema.find("required");
  if (required == schema.end()) return;
  if (!required->is_array()) refuse(path, "required must be a list of names");
  const auto properties = schema.find("properties");
  for (const auto& name : *required) {
    if (!name.is_string()) refuse(path, "required must be a list of names");
    const auto& text = name.get_ref<const std::string&>();
    if (properties == schema.end() || !properties->is_object() || !properties->contains(text)) {
      refuse(path, fmt::format("'{}' is required, but not among the properties",
                               shortened(text, kMostName)));
    }
  }
}

void prepare(Schema& schema, const std::string& path, int depth);

void prepare_all(Schema& schemas, const std::string& path, int depth) {
  for (size_t i = 0; i < schemas.size(); ++i) {
    prepare(schemas[i], path_below(path, std::to_string(i)), depth);
  }
}

// The schemas that a schema has in it.
void prepare_below(Schema& schema, const std::string& path, int depth) {
  for (auto& [name, value] : schema.items()) {
    const auto is_one_of = [&, key = std::string_view(name)](Names names) {
      return std::ranges::find(names, key) != names.end();
    };
    const auto below = path_below(path, name);
    if (is_one_of({"properties", "patternProperties", "$defs", "definitions"})) {
      if (!value.is_object()) refuse(below, "must be an object of schemas");
      for (auto& [key, one] : value.items()) prepare(one, path_below(below, key), depth);
    } else if (is_one_of({"anyOf", "oneOf", "allOf", "prefixItems"})) {
      if (!value.is_array() || value.empty()) refuse(below, "must be a list of schemas");
      prepare_all(value, below, depth);
    } else if (is_one_of({"items", "additionalProperties", "unevaluatedProperties",
                          "unevaluatedItems", "propertyNames"})) {
      prepare(value, below, depth);
    }
  }
}

void close_object(Schema& schema) {
  const bool says_of_others =
      has_any(schema, {"additionalProperties", "unevaluatedProperties", "patternProperties",
                       "propertyNames", "minProperties"});
  if (schema.contains("properties") && !says_of_others) schema["additionalProperties"] = false;
}

void prepare(Schema& schema, const std::string& path, int depth) {
  if (schema.is_boolean()) return;
  if (!schema.is_object()) refuse(path, "a schema must be an object, true or false");
  if (depth >= kMostDepth) {
    refuse("it", fmt::format("schemas are nested more than {} deep", kMostDepth));
  }
  check_supported(schema, path);
  const auto whole =
      std::ranges::find_if(kWhole, [&](const char* name) { return schema.contains(name); });
  if (whole != kWhole.end()) {
    check_alone(schema, *whole, path);
    check_ref(schema, path);
    const auto all = schema.find("allOf");
    if (all != schema.end() && all->size() > 1) refuse(path, "allOf of several is not supported");
  } else {
    check_typed(schema, path);
    check_required(schema, path);
  }
  prepare_below(schema, path, depth + 1);
  if (whole == kWhole.end()) close_object(schema);
}

Schema parse(std::string_view text) {
  if (text.size() > kMostBytes) {
    throw std::invalid_argument(
        fmt::format("JSON Schema: it has {} bytes, but may have {}", text.size(), kMostBytes));
  }
  const auto check_depth = [](int depth, Schema::parse_event_t /*event*/, Schema& /*value*/) {
    // A schema lies in a list or an object of its parent.
    if (depth > 2 * kMostDepth + 2) {
      throw std::invalid_argument("JSON Schema: it is nested too deeply");
    }
    return true;
  };
  try {
    return Schema::parse(text, check_depth);
  } catch (const Schema::parse_error& error) {
    throw std::invalid_argument(
        fmt::format("JSON Schema: it is no JSON: byte {} is unexpected", error.byte));
  } catch (const Schema::out_of_range& /*error*/) {
    throw std::invalid_argument("JSON Schema: it has a number that is too large");
  }
}

}  // namespace

std::string prepared_schema(std::string_view text) {
  auto schema = parse(text);
  prepare(schema, "#", 0);
  return schema.dump(-1, ' ', /*ensure_ascii=*/true, Schema::error_handler_t::replace);
}

}  // namespace gemma
