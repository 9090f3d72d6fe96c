#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

// Base64 of RFC 4648, section 4.
namespace gemma::server {

std::string to_base64(std::span<const std::byte> bytes);

/// The bytes; none unless the text is what to_base64 makes of some: no blanks, padded to whole
/// groups of four.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace gemma::server
