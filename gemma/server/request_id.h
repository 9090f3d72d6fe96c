#pragma once

#include <string>
#include <string_view>

namespace gemma::server {

/// `prefix` and 24 random hexadecimal digits.
std::string random_id(std::string_view prefix);

}  // namespace gemma::server
