#include <chrono>
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

int64_t seconds_since_1970() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace gemma::server
