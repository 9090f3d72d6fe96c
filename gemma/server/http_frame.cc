#include <ctime>
#include <iterator>
#include <string_view>

#include <fmt/format.h>

#include <gemma/server/http_frame.h>
#include <gemma/server/http_parser.h>

namespace gemma::server {
namespace {

// As RFC 9110 5.6.7 wants it.
std::string date() {
  const auto now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::string text(32, '\0');
  text.resize(std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts));
  return text;
}

std::string head_of(const HttpResponse& response, bool is_whole, AnswerFrame& frame) {
  std::string head = fmt::format("HTTP/1.1 {} {}\r\n", response.status, reason_of(response.status));
  const auto add = [&](std::string_view name, std::string_view value) {
    fmt::format_to(std::back_inserter(head), "{}: {}\r\n", name, value);
  };
  add("Date", date());
  add("Content-Type", response.content_type);
  add("Cache-Control", "no-store");
  add("X-Content-Type-Options", "nosniff");
  add("x-request-id", frame.id);
  for (const auto& [name, value] : response.headers) add(name, value);
  if (is_whole) {
    add("Content-Length", std::to_string(response.body.size()));
  } else if (frame.is_chunked) {
    add("Transfer-Encoding", "chunked");
  } else {
    frame.keep_alive = false;
  }
  add("Connection", frame.keep_alive ? "keep-alive" : "close");
  return head + "\r\n";
}

}  // namespace

std::string framed(HttpExchange::Part part, AnswerFrame& frame) {
  std::string bytes;
  if (part.head) bytes = head_of(*part.head, part.is_whole, frame);
  if (frame.is_head_request) return bytes;
  if (part.is_whole) return part.head ? bytes + part.head->body : bytes;
  if (!frame.is_chunked) return bytes + part.bytes;
  if (!part.bytes.empty()) bytes += fmt::format("{:x}\r\n{}\r\n", part.bytes.size(), part.bytes);
  if (part.is_ended && !part.is_cut_off) bytes += "0\r\n\r\n";
  return bytes;
}

}  // namespace gemma::server
