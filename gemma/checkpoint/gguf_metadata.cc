#include <iterator>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include <gemma/checkpoint/bytes.h>
#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/gguf_metadata.h>

namespace gemma {
namespace {

// In the order of GgufType.
constexpr GgufTypeInfo kTypes[] = {{"uint8", 1},  {"int8", 1},  {"uint16", 2},  {"int16", 2},
                                   {"uint32", 4}, {"int32", 4}, {"float32", 4}, {"bool", 1},
                                   {"string", 0}, {"array", 0}, {"uint64", 8},  {"int64", 8},
                                   {"float64", 8}};

std::string type_name(const GgufMetadata::Value& value) {
  return value.type == GgufType::kArray
             ? fmt::format("an array of {}", gguf_type_info(value.element)->name)
             : std::string(gguf_type_info(value.type)->name);
}

// A value as a T; none when it is of another type. Throws FormatError for one that T cannot hold.
template <typename T>
struct Decoder;

template <typename Stored, typename T>
T number_as(Bytes bytes) {
  const auto number = load<Stored>(bytes, 0, "number");
  if constexpr (std::is_same_v<T, int64_t>) {
    if (!std::in_range<int64_t>(number)) format_error("is {}, beyond 2^63 - 1", number);
  }
  return static_cast<T>(number);
}

template <typename T>
std::optional<T> integer_as(GgufType type, Bytes bytes) {
  switch (type) {
    case GgufType::kUint8:
      return number_as<uint8_t, T>(bytes);
    case GgufType::kInt8:
      return number_as<int8_t, T>(bytes);
    case GgufType::kUint16:
      return number_as<uint16_t, T>(bytes);
    case GgufType::kInt16:
      return number_as<int16_t, T>(bytes);
    case GgufType::kUint32:
      return number_as<uint32_t, T>(bytes);
    case GgufType::kInt32:
      return number_as<int32_t, T>(bytes);
    case GgufType::kUint64:
      return number_as<uint64_t, T>(bytes);
    case GgufType::kInt64:
      return number_as<int64_t, T>(bytes);
    default:
      return std::nullopt;
  }
}

template <>
struct Decoder<int64_t> {
  static constexpr std::string_view kName = "an integer";
  static std::optional<int64_t> decode(GgufType type, Bytes bytes) {
    return integer_as<int64_t>(type, bytes);
  }
};

template <>
struct Decoder<double> {
  static constexpr std::string_view kName = "a number";
  static std::optional<double> decode(GgufType type, Bytes bytes) {
    if (type == GgufType::kFloat32) return load<float>(bytes, 0, "number");
    if (type == GgufType::kFloat64) return load<double>(bytes, 0, "number");
    return integer_as<double>(type, bytes);
  }
};

template <>
struct Decoder<bool> {
  static constexpr std::string_view kName = "a bool";
  static std::optional<bool> decode(GgufType type, Bytes bytes) {
    if (type != GgufType::kBool) return std::nullopt;
    const auto value = load<uint8_t>(bytes, 0, "bool");
    if (value > 1) format_error("is a bool of {}, not 0 or 1", value);
    return value == 1;
  }
};

template <>
struct Decoder<std::string> {
  static constexpr std::string_view kName = "a string";
  static std::optional<std::string> decode(GgufType type, Bytes bytes) {
    if (type != GgufType::kString) return std::nullopt;
    return std::string(as_text(bytes.subspan(sizeof(uint64_t))));
  }
};

// Of a string or number at the beginning of `bytes`, which hold at least that.
uint64_t stored_size(GgufType type, Bytes bytes) {
  return type == GgufType::kString
             ? sizeof(uint64_t) + load<uint64_t>(bytes, 0, "length of a string")
             : gguf_type_info(type)->bytes;
}

template <typename T>
std::optional<T> decode(const GgufMetadata::Value& value) {
  if (value.type == GgufType::kArray) return std::nullopt;
  return Decoder<T>::decode(value.type, value.bytes);
}

template <typename T>
std::optional<std::vector<T>> decode_array(const GgufMetadata::Value& value) {
  if (value.type != GgufType::kArray || value.element == GgufType::kArray) return std::nullopt;
  std::vector<T> items;
  Bytes rest = value.bytes;
  for (uint64_t i = 0; i < value.count; ++i) {
    const uint64_t size = stored_size(value.element, rest);
    auto item = Decoder<T>::decode(value.element, rest.first(size));
    if (!item) return std::nullopt;
    items.push_back(*std::move(item));
    rest = rest.subspan(size);
  }
  return items;
}

template <typename T>
constexpr bool kIsVector = false;
template <typename T>
constexpr bool kIsVector<std::vector<T>> = true;

}  // namespace

const GgufTypeInfo* gguf_type_info(GgufType type) {
  const auto index = static_cast<size_t>(type);
  return index < std::size(kTypes) ? &kTypes[index] : nullptr;
}

GgufMetadata::GgufMetadata(std::map<std::string_view, Value> values, std::string path)
    : values_(std::move(values)), path_(std::move(path)) {}

template <typename T>
std::optional<T> GgufMetadata::get(std::string_view key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return std::nullopt;
  const auto refuse = [&](std::string_view what) {
    refuse_file(path_, fmt::format("key '{}' {}", printable(key), what));
  };
  try {
    if constexpr (kIsVector<T>) {
      using Item = typename T::value_type;
      auto items = decode_array<Item>(found->second);
      if (!items) {
        refuse(fmt::format("is {}, not an array, each of it {}", type_name(found->second),
                           Decoder<Item>::kName));
      }
      return items;
    } else {
      auto value = decode<T>(found->second);
      if (!value) {
        refuse(fmt::format("is {}, not {}", type_name(found->second), Decoder<T>::kName));
      }
      return value;
    }
  } catch (const FormatError& error) {
    refuse(error.what());
  }
  return std::nullopt;
}

template <typename T>
T GgufMetadata::require(std::string_view key) const {
  auto value = get<T>(key);
  if (!value) {
    refuse_file(path_,
                fmt::format("has no key '{}': was it made for another program?", printable(key)));
  }
  return *std::move(value);
}

template std::optional<int64_t> GgufMetadata::get(std::string_view) const;
template std::optional<double> GgufMetadata::get(std::string_view) const;
template std::optional<bool> GgufMetadata::get(std::string_view) const;
template std::optional<std::string> GgufMetadata::get(std::string_view) const;
template std::optional<std::vector<int64_t>> GgufMetadata::get(std::string_view) const;
template std::optional<std::vector<double>> GgufMetadata::get(std::string_view) const;
template std::optional<std::vector<bool>> GgufMetadata::get(std::string_view) const;
template std::optional<std::vector<std::string>> GgufMetadata::get(std::string_view) const;
template int64_t GgufMetadata::require(std::string_view) const;
template double GgufMetadata::require(std::string_view) const;
template bool GgufMetadata::require(std::string_view) const;
template std::string GgufMetadata::require(std::string_view) const;
template std::vector<int64_t> GgufMetadata::require(std::string_view) const;
template std::vector<double> GgufMetadata::require(std::string_view) const;
template std::vector<bool> GgufMetadata::require(std::string_view) const;
template std::vector<std::string> GgufMetadata::require(std::string_view) const;

}  // namespace gemma
