#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <gemma/server/http.h>
#include <gemma/server/http_parser.h>

namespace gemma::server {

class HttpConnection;

struct HttpServerOptions {
  std::string host = "127.0.0.1";  ///< An address of this machine, or a name of one.
  uint16_t port = 8080;            ///< 0: any that is free.
  HttpLimits limits = {};
  /// Seconds until a request's headers, its body, the next request, or a part of an answer has to
  /// have gone through. Else the connection ends.
  double head_timeout = 30, body_timeout = 120, idle_timeout = 300, write_timeout = 30;
  /// Seconds between signs of life in a stream that has nothing to say.
  double keep_alive = 15;
  /// Most bytes of an answer that wait for their client, which is taken to be gone past that.
  size_t most_unread = 4 << 20;
  /// Most connections; more wait to be accepted.
  size_t max_connections = 1024;
  /// The body of the answer to a request that cannot be read.
  std::function<std::string(int status)> error_body = {};
  /// Called for each answered request.
  std::function<void(const HttpLog& log)> log = {};
};

/// Serves HTTP/1.1. One thread reads and writes, of any number of connections; an answer that takes
/// its time keeps nobody waiting.
class HttpServer {
 public:
  /// Listens. Throws std::runtime_error, naming the address, when it cannot.
  HttpServer(HttpServerOptions options, HttpHandler handler);
  /// Replies must not be used after this.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  /// "http://127.0.0.1:8080".
  std::string url() const;
  uint16_t port() const;
  /// Nobody on another machine can reach it.
  bool is_local() const;

  /// Serves until close() or stop().
  void run();
  /// Accepts no more requests; run() returns when those that there are have been answered.
  void close();
  /// run() returns at once.
  void stop();

 private:
  friend class HttpConnection;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gemma::server
