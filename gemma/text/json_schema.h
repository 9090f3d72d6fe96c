#pragma once

#include <string>
#include <string_view>

namespace gemma {

/// A JSON Schema as the grammars of this library take it: the same, but that an object whose
/// `properties` are told has no others, unless the schema says something of others itself. Whatever
/// fits the result fits the schema.
///
/// Throws std::invalid_argument, one line with the place in the schema, for what is no JSON, is
/// longer than 64 KB or nested more than 32 deep, and for what the grammars cannot promise:
///
/// - `not`, `if`, `dependentRequired`, `dependentSchemas`, `uniqueItems`, `contains` and what else
///   belongs to them;
/// - constraints beside `$ref`, `const`, `enum`, `anyOf`, `oneOf` or `allOf`, and an `allOf` of
///   several;
/// - constraints of numbers, texts, lists or objects without the `type`;
/// - a `$ref` to another document; a property that is `required` but not among the `properties`.
std::string prepared_schema(std::string_view schema);

}  // namespace gemma
