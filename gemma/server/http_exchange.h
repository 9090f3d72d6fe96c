#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include <gemma/server/http.h>

namespace gemma::server {

/// An answer on its way from who makes it to the connection that sends it.
class HttpExchange {
 public:
  /// `wake` is called when there is something to take. A client that leaves more than `most_unread`
  /// bytes waiting has gone.
  HttpExchange(size_t most_unread, std::function<void()> wake);

  /// The other end. The exchange is ended when it is destroyed.
  static std::shared_ptr<HttpReply> reply_of(std::shared_ptr<HttpExchange> exchange);

  void begin(HttpResponse head, bool is_whole, std::string keep_alive);
  void write(std::string_view chunk);
  void end();
  /// What is missing is an answer of 500, or the end of one.
  void abandon();
  void on_gone(std::function<void()> callback);
  void set_cost(const AnswerCost& cost);

  struct Part {
    /// Status and headers, the first time.
    std::optional<HttpResponse> head;
    /// With `head`: its body is all that comes.
    bool is_whole;
    std::string bytes;
    bool is_ended;
    /// It ends too early.
    bool is_cut_off;
  };
  /// What has come since the last time.
  Part take();
  std::string keep_alive() const;
  AnswerCost cost() const;
  void set_gone();

 private:
  void wake();

  const size_t most_unread_;
  const std::function<void()> wake_;
  mutable std::mutex mutex_;
  std::optional<HttpResponse> head_;
  bool is_begun_ = false, is_whole_ = false, is_ended_ = false, is_cut_off_ = false;
  bool is_gone_ = false, is_woken_ = false;
  std::string unread_, keep_alive_;
  std::function<void()> on_gone_;
  AnswerCost cost_;
};

}  // namespace gemma::server
