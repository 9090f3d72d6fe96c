#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <gemma/server/http.h>

namespace gemma::server {

struct HttpLimits {
  uint32_t head = 16 << 10;          ///< Bytes of a request's line and headers.
  uint64_t body = 10 * 1000 * 1000;  ///< Bytes.
};

/// Reads one HTTP/1 request out of bytes as they come.
class HttpParser {
 public:
  explicit HttpParser(const HttpLimits& limits);
  ~HttpParser();
  HttpParser(HttpParser&&) noexcept;
  HttpParser& operator=(HttpParser&&) noexcept;

  /// Takes what belongs to the request away from the front of `bytes`. More is needed until
  /// is_done(). -> the status to refuse it with, as soon as it is known: 400 when it is no HTTP/1
  /// request, 413, 431.
  std::optional<int> put(std::string& bytes);

  /// Something of it has come.
  bool is_begun() const;
  bool is_head_done() const;
  /// The headers are there, and the client wants to hear so before it sends the body.
  bool expects_continue() const;
  bool is_done() const;

  /// The request, once; after is_done().
  HttpRequest take();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// "Not Found".
std::string reason_of(int status);

}  // namespace gemma::server
