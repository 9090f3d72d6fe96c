#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include <nlohmann/json.hpp>

namespace gemma {

/// A JSON text that is an object. Throws std::runtime_error, one line that names `path`, when it is
/// none, has over a megabyte, or is nested more than 32 deep.
nlohmann::json parse_fields(std::string_view text, const std::string& path);

/// The same of a text that is a list.
nlohmann::json parse_list(std::string_view text, const std::string& path);

/// The fields of an object in a config.json. Those that are null are as if they were not there.
/// What is wrong with one throws std::runtime_error, which names the file and the field.
class Fields {
 public:
  /// `object` has to outlive this; `prefix` is put before names of fields in messages.
  Fields(const nlohmann::json& object, std::string path, std::string prefix = {});

  [[noreturn]] void refuse(std::string_view field, std::string_view what) const;

  /// nullptr for a field that is not there, or null.
  const nlohmann::json* find(std::string_view field) const;

  std::optional<double> number(std::string_view field) const;  ///< Above 0.
  std::optional<int64_t> whole(std::string_view field) const;  ///< From 1 to 2^40.
  std::optional<std::string> text(std::string_view field) const;
  bool flag(std::string_view field) const;  ///< False when it is not there.
  std::optional<Fields> object(std::string_view field) const;

  /// Leave `into` as it is for a field that is not there; null is none, where none is a value.
  void read(std::string_view field, int64_t& into) const { into = whole(field).value_or(into); }
  void read(std::string_view field, double& into) const { into = number(field).value_or(into); }
  template <typename T>
    requires std::is_arithmetic_v<T>
  void read(std::string_view field, std::optional<T>& into) const {
    if (object_.contains(field)) into = std::nullopt;
    if (find(field) == nullptr) return;
    T value{};
    read(field, value);
    into = value;
  }

  /// Refuses fields other than those in `known` whose names contain one of `words`, unless their
  /// value changes nothing: null, false, 0, what is empty, and 1 of a factor.
  void check_others(std::span<const std::string_view> known,
                    std::span<const std::string_view> words) const;

  /// For messages.
  static std::string shown(const nlohmann::json& value);

 private:
  const nlohmann::json& object_;
  std::string path_, prefix_;
};

}  // namespace gemma
