#include <stdexcept>
#include <string>

#include <gtest/gtest.h>

#include <gemma/text/json_schema.h>

namespace gemma {
namespace {

std::string error_of(const std::string& schema) {
  try {
    prepared_schema(schema);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return {};
}

TEST(JsonSchemaTest, AnObjectWhosePropertiesAreToldHasNoOthers) {
  EXPECT_EQ(prepared_schema(R"({"type": "object", "properties": {"b": {}, "a": {}}})"),
            R"({"type":"object","properties":{"b":{},"a":{}},"additionalProperties":false})");
}

TEST(JsonSchemaTest, WhatASchemaSaysOfOtherPropertiesStays) {
  for (const std::string schema :
       {R"({"type":"object","properties":{"a":{}},"additionalProperties":true})",
        R"({"type":"object","additionalProperties":{"type":"integer"}})", R"({"type":"object"})",
        R"({"anyOf":[{"type":"string"},{"type":"null"}],"default":null,"title":"A"})",
        R"({"type":"string","enum":["a","b"]})", R"({"$ref":"#","description":"itself"})",
        R"({"type":["string","null"],"maxLength":3})", "true"}) {
    EXPECT_EQ(prepared_schema(schema), schema);
  }
}

// Names of properties are no keywords.
TEST(JsonSchemaTest, APropertyMayHaveAnyName) {
  EXPECT_EQ(error_of(R"({"type": "object", "properties": {"not": {}, "if": {}, "$ref": {}}})"), "");
}

TEST(JsonSchemaTest, WhatCannotBePromisedIsNamedWithItsPlace) {
  const auto below = [](const std::string& schema) {
    return error_of(R"({"type": "object", "properties": {"a": {"type": "array", "items": )" +
                    schema + "}}}");
  };
  const std::string place = "JSON Schema: #/properties/a/items: ";
  EXPECT_EQ(below(R"({"not": {}})"), place + "not is not supported");
  EXPECT_EQ(below(R"({"type": "array", "uniqueItems": true})"),
            place + "uniqueItems is not supported");
  EXPECT_EQ(below(R"({"$ref": "#", "minLength": 1})"),
            place + "minLength beside $ref is not supported");
  EXPECT_EQ(below(R"({"anyOf": [{}], "properties": {}})"),
            place + "properties beside anyOf is not supported");
  EXPECT_EQ(below(R"({"anyOf": [{}], "oneOf": [{}]})"),
            place + "oneOf beside anyOf is not supported");
  EXPECT_EQ(below(R"({"allOf": [{}, {}]})"), place + "allOf of several is not supported");
  EXPECT_EQ(below(R"({"minLength": 1})"),
            place + R"(minLength has no effect without a type; add "type": "string")");
  EXPECT_EQ(below(R"({"$ref": "other.json"})"),
            place + R"($ref must point into the same schema: "#/$defs/name")");
  EXPECT_EQ(below(R"({"type": "object", "required": ["b"], "properties": {"a": {}}})"),
            place + "'b' is required, but not among the properties");
  EXPECT_EQ(below("3"), place + "a schema must be an object, true or false");
  EXPECT_EQ(below(R"({"anyOf": {}})"),
            "JSON Schema: #/properties/a/items/anyOf: must be a list of schemas");
}

TEST(JsonSchemaTest, SizeAndDepthAreLimited) {
  EXPECT_EQ(error_of("{"), "JSON Schema: it is no JSON: byte 2 is unexpected");
  EXPECT_EQ(error_of(R"({"maximum": 1e999})"), "JSON Schema: it has a number that is too large");
  EXPECT_EQ(error_of(R"({"title": ")" + std::string(65536, 'a') + "\"}"),
            "JSON Schema: it has 65549 bytes, but may have 65536");
  const auto nested = [](int depth) {
    std::string schema = "true";
    for (int i = 0; i < depth; ++i) schema = R"({"type": "array", "items": )" + schema + "}";
    return schema;
  };
  EXPECT_EQ(error_of(nested(32)), "");
  EXPECT_EQ(error_of(nested(33)), "JSON Schema: it: schemas are nested more than 32 deep");
  EXPECT_EQ(error_of(std::string(30000, '[')), "JSON Schema: it is nested too deeply");
}

}  // namespace
}  // namespace gemma
