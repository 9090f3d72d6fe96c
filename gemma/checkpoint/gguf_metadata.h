#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace gemma {

/// The types of values in a GGUF file, by their numbers there.
enum class GgufType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

struct GgufTypeInfo {
  std::string_view name;
  uint64_t bytes;  // Of a value; 0 when they vary.
};

/// None for a number that is not a type.
const GgufTypeInfo* gguf_type_info(GgufType type);

/// The keys of a GGUF file and their values, which are read where they stand: the object is small
/// whatever the file says, and valid as long as the file's bytes are.
class GgufMetadata {
 public:
  /// A value's place, checked to lie in the file.
  struct Value {
    GgufType type;
    GgufType element;  // Of an array; else as `type`.
    uint64_t count;    // Of an array; else 1.
    std::span<const std::byte> bytes;
  };

  GgufMetadata(std::map<std::string_view, Value> values, std::string path);

  /// The value of `key`; none when the file has no such key. T is int64_t (any type of integer),
  /// double (also from integers), bool, std::string, or a std::vector of one of them (for an
  /// array). Throws std::runtime_error, naming file, key and both types, for a value of another
  /// type or an integer above 2^63 - 1.
  template <typename T>
  std::optional<T> get(std::string_view key) const;

  /// As `get`, but throws std::runtime_error when the file has no such key.
  template <typename T>
  T require(std::string_view key) const;

  bool contains(std::string_view key) const { return values_.contains(key); }
  /// Sorted by key.
  const std::map<std::string_view, Value>& values() const { return values_; }
  /// Of the file, for messages.
  const std::string& path() const { return path_; }

 private:
  std::map<std::string_view, Value> values_;
  std::string path_;
};

}  // namespace gemma
