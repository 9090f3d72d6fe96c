#include <ctime>
#include <string_view>

#include <fmt/format.h>

#include <gemma/server/api_error.h>
#include <gemma/server/json.h>
#include <gemma/server/log_line.h>

namespace gemma::server {
namespace {

std::string time_now() {
  const auto now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::string text(32, '\0');
  text.resize(std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts));
  return text;
}

// Without its query, which may hold what is nobody's business.
std::string path_of(const HttpLog& entry) {
  constexpr size_t kMost = 200;
  return entry.target.substr(0, std::min(kMost, entry.target.find('?')));
}

// What a terminal might obey is spelled out.
std::string printable(std::string_view text) {
  std::string shown;
  for (const char c : text) {
    if (c > ' ' && c < 0x7f) {
      shown += c;
    } else {
      shown += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return shown;
}

}  // namespace

std::string log_line(const HttpLog& entry) {
  auto line = fmt::format("{} {} {} {} {}{} {:.3f} s", time_now(), entry.client,
                          entry.method.empty() ? "-" : printable(entry.method),
                          entry.target.empty() ? "-" : printable(path_of(entry)), entry.status,
                          entry.is_cut_off ? " cut off" : "", entry.seconds);
  if (entry.cost.prompt_tokens > 0) {
    line += fmt::format(", {} tokens ({} cached) + {}", entry.cost.prompt_tokens,
                        entry.cost.cached_tokens, entry.cost.completion_tokens);
  }
  return line + " " + entry.id;
}

std::string log_json(const HttpLog& entry) {
  Json line;
  line["time"] = time_now();
  line["client"] = entry.client;
  line["method"] = entry.method;
  line["path"] = path_of(entry);
  line["status"] = entry.status;
  line["cut_off"] = entry.is_cut_off;
  line["seconds"] = entry.seconds;
  line["prompt_tokens"] = entry.cost.prompt_tokens;
  line["cached_tokens"] = entry.cost.cached_tokens;
  line["completion_tokens"] = entry.cost.completion_tokens;
  line["id"] = entry.id;
  return to_text(line);
}

std::string unreadable_body(int status) {
  switch (status) {
    case 408:
      return ApiError(status, "the request did not come in time", "timeout").body();
    case 413:
      return ApiError(status, "the body is larger than the server takes", "body_too_large").body();
    case 431:
      return ApiError(status, "the headers are larger than the server takes", "headers_too_large")
          .body();
    default:
      return ApiError(status, "the request is no HTTP/1 request", "bad_request").body();
  }
}

}  // namespace gemma::server
