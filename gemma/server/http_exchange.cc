#include <string_view>
#include <utility>

#include <gemma/server/api_error.h>
#include <gemma/server/http_exchange.h>

namespace gemma::server {
namespace {

class ExchangeReply : public HttpReply {
 public:
  explicit ExchangeReply(std::shared_ptr<HttpExchange> exchange) : exchange_(std::move(exchange)) {}
  ~ExchangeReply() override { exchange_->abandon(); }
  ExchangeReply(const ExchangeReply&) = delete;
  ExchangeReply& operator=(const ExchangeReply&) = delete;

  void send(HttpResponse response) override {
    exchange_->begin(std::move(response), /*is_whole=*/true, /*keep_alive=*/{});
  }
  void begin(HttpResponse head, std::string keep_alive) override {
    exchange_->begin(std::move(head), /*is_whole=*/false, std::move(keep_alive));
  }
  void write(std::string chunk) override { exchange_->write(chunk); }
  void end() override { exchange_->end(); }
  void on_gone(std::function<void()> callback) override { exchange_->on_gone(std::move(callback)); }
  void set_cost(const AnswerCost& cost) override { exchange_->set_cost(cost); }

 private:
  std::shared_ptr<HttpExchange> exchange_;
};

}  // namespace

HttpExchange::HttpExchange(size_t most_unread, std::function<void()> wake)
    : most_unread_(most_unread), wake_(std::move(wake)) {}

std::shared_ptr<HttpReply> HttpExchange::reply_of(std::shared_ptr<HttpExchange> exchange) {
  return std::make_shared<ExchangeReply>(std::move(exchange));
}

void HttpExchange::begin(HttpResponse head, bool is_whole, std::string keep_alive) {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(is_begun_, true)) return;
    head_ = std::move(head);
    is_whole_ = is_ended_ = is_whole;
    keep_alive_ = std::move(keep_alive);
  }
  wake();
}

void HttpExchange::write(std::string_view chunk) {
  bool is_too_slow = false;
  {
    const std::lock_guard lock(mutex_);
    if (is_gone_ || is_ended_) return;
    unread_ += chunk;
    is_too_slow = unread_.size() > most_unread_;
    is_cut_off_ = is_ended_ = is_too_slow;
  }
  if (is_too_slow) set_gone();
  wake();
}

void HttpExchange::end() {
  {
    const std::lock_guard lock(mutex_);
    is_ended_ = true;
  }
  wake();
}

void HttpExchange::abandon() {
  {
    const std::lock_guard lock(mutex_);
    on_gone_ = nullptr;
    if (is_ended_) return;
    if (is_begun_) is_cut_off_ = is_ended_ = true;
  }
  begin(ApiError::internal().response(), /*is_whole=*/true, /*keep_alive=*/{});
  wake();
}

void HttpExchange::on_gone(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!is_gone_) {
      on_gone_ = std::move(callback);
      return;
    }
  }
  callback();
}

void HttpExchange::set_cost(const AnswerCost& cost) {
  const std::lock_guard lock(mutex_);
  cost_ = cost;
}

HttpExchange::Part HttpExchange::take() {
  const std::lock_guard lock(mutex_);
  is_woken_ = false;
  return {.head = std::exchange(head_, std::nullopt),
          .is_whole = is_whole_,
          .bytes = std::exchange(unread_, {}),
          .is_ended = is_ended_,
          .is_cut_off = is_cut_off_};
}

std::string HttpExchange::keep_alive() const {
  const std::lock_guard lock(mutex_);
  return keep_alive_;
}

AnswerCost HttpExchange::cost() const {
  const std::lock_guard lock(mutex_);
  return cost_;
}

// The callback may destroy the reply.
void HttpExchange::set_gone() {
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    is_gone_ = true;
    callback = std::exchange(on_gone_, nullptr);
  }
  if (callback) callback();
}

void HttpExchange::wake() {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(is_woken_, true)) return;
  }
  wake_();
}

}  // namespace gemma::server
