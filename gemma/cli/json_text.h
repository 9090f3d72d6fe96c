#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace gemma::cli {

/// JSON for people: characters of any script as they are, what is not UTF-8 replaced.
inline std::string to_json(const nlohmann::ordered_json& value, int indent = -1) {
  return value.dump(indent, ' ', /*ensure_ascii=*/false, nlohmann::json::error_handler_t::replace);
}

}  // namespace gemma::cli
