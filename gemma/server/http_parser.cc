#include <algorithm>
#include <cctype>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/beast/http/string_body.hpp>

#include <gemma/server/http_parser.h>

namespace gemma::server {
namespace {

namespace http = boost::beast::http;

int status_of(const boost::beast::error_code& error) {
  if (error == http::error::body_limit) return 413;
  if (error == http::error::header_limit) return 431;
  return 400;
}

// Whether others may read it in another way: where it ends, or whose host it names. Beast takes it
// for a request without a body where it does not know the coding.
template <typename Request>
bool is_ambiguous(const Request& request) {
  if (request.count(http::field::host) > 1) return true;
  const auto coding = request.find(http::field::transfer_encoding);
  return coding != request.end() &&
         (request.version() < 11 || !boost::beast::iequals(coding->value(), "chunked"));
}

std::string lower_case(boost::beast::string_view text) {
  std::string lower(text);
  std::ranges::transform(lower, lower.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

}  // namespace

struct HttpParser::Impl {
  http::request_parser<http::string_body> parser;
  bool is_begun = false;
};

HttpParser::HttpParser(const HttpLimits& limits) : impl_(std::make_unique<Impl>()) {
  impl_->parser.header_limit(limits.head);
  impl_->parser.body_limit(limits.body);
  impl_->parser.eager(true);
}

HttpParser::~HttpParser() = default;
HttpParser::HttpParser(HttpParser&&) noexcept = default;
HttpParser& HttpParser::operator=(HttpParser&&) noexcept = default;

std::optional<int> HttpParser::put(std::string& bytes) {
  auto& parser = impl_->parser;
  while (!bytes.empty() && !parser.is_done()) {
    impl_->is_begun = true;
    boost::beast::error_code error;
    const auto used = parser.put(boost::asio::buffer(std::as_const(bytes)), error);
    bytes.erase(0, used);
    if (error && error != http::error::need_more) return status_of(error);
    if (parser.is_header_done() && is_ambiguous(parser.get())) return 400;
    if (error) return std::nullopt;
  }
  return std::nullopt;
}

bool HttpParser::is_begun() const { return impl_->is_begun; }

bool HttpParser::is_head_done() const { return impl_->parser.is_header_done(); }

bool HttpParser::expects_continue() const {
  return is_head_done() && !is_done() &&
         boost::beast::iequals(impl_->parser.get()[http::field::expect], "100-continue");
}

bool HttpParser::is_done() const { return impl_->parser.is_done(); }

HttpRequest HttpParser::take() {
  auto message = impl_->parser.release();
  HttpRequest request{.method = std::string(message.method_string()),
                      .target = std::string(message.target()),
                      .headers = {},
                      .body = std::move(message.body()),
                      .is_http_10 = message.version() < 11,
                      .keep_alive = message.keep_alive()};
  for (const auto& field : message) {
    request.headers.emplace_back(lower_case(field.name_string()), std::string(field.value()));
  }
  return request;
}

std::string reason_of(int status) {
  return std::string(http::obsolete_reason(http::int_to_status(static_cast<unsigned>(status))));
}

}  // namespace gemma::server
