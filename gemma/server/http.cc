#include <algorithm>

#include <gemma/server/http.h>

namespace gemma::server {

std::string_view HttpRequest::header(std::string_view name) const {
  const auto found = std::ranges::find(
      headers, name, [](const auto& header) -> std::string_view { return header.first; });
  return found == headers.end() ? std::string_view() : found->second;
}

std::string_view HttpRequest::path() const {
  return std::string_view(target).substr(0, target.find('?'));
}

}  // namespace gemma::server
