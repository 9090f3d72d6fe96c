#include <cstdint>
#include <random>

#include <fmt/format.h>

#include <gemma/server/request_id.h>

namespace gemma::server {

std::string random_id(std::string_view prefix) {
  std::random_device random;
  const uint32_t a = random(), b = random(), c = random();
  return fmt::format("{}{:08x}{:08x}{:08x}", prefix, a, b, c);
}

}  // namespace gemma::server
