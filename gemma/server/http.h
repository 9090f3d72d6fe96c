#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// Requests and their answers, whatever carries them.
namespace gemma::server {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;   ///< "GET".
  std::string target;   ///< "/v1/models?x=y".
  HttpHeaders headers;  ///< Names in lower case.
  std::string body;
  bool is_http_10 = false;
  bool keep_alive = true;

  /// The first header of this name, given in lower case; empty when there is none.
  std::string_view header(std::string_view name) const;
  /// The target without its query.
  std::string_view path() const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body = {};
  HttpHeaders headers = {};
};

/// What an answer cost, for the log.
struct AnswerCost {
  int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0;
};

/// Answers a request: by send(), or by begin(), any number of write() and end(). From any thread.
/// What is not answered when it is destroyed is answered with 500, or cut off.
class HttpReply {
 public:
  virtual ~HttpReply() = default;

  virtual void send(HttpResponse response) = 0;

  /// Sends status and headers now, the body by write(). While nothing is written for a while,
  /// `keep_alive` is, if it is not empty.
  virtual void begin(HttpResponse head, std::string keep_alive) = 0;
  virtual void write(std::string chunk) = 0;
  virtual void end() = 0;

  /// Calls it, once, when the client has gone or takes nothing more; at once if it has already.
  virtual void on_gone(std::function<void()> callback) = 0;

  virtual void set_cost(const AnswerCost& cost) = 0;
};

/// Answers a request, now or later. Must not take long, as nothing else is served meanwhile.
using HttpHandler = std::function<void(HttpRequest request, std::shared_ptr<HttpReply> reply)>;

/// What is logged of an answered request.
struct HttpLog {
  std::string client;          ///< Its address.
  std::string id;              ///< The answer's x-request-id.
  std::string method, target;  ///< Empty when the request could not be read.
  int status;
  bool is_cut_off;  ///< The client did not take all of the answer.
  double seconds;
  AnswerCost cost;
};

}  // namespace gemma::server
