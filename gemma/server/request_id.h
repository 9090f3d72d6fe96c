#pragma once

#include <string>
#include <string_view>

namespace gemma::server {

/// `prefix` and 24 random hexadecimal digits.
std::string random_id(std::string_view prefix);

/// The time now, as OpenAI's API tells it.
int64_t seconds_since_1970();

}  // namespace gemma::server
