#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/server/api.h>

namespace gemma::server {
namespace {

using testing::contains;

// What a client got.
struct Received {
  std::mutex mutex;
  HttpResponse response{.status = 0};
  std::string body;
  bool is_ended = false;
  std::function<void()> on_gone;

  std::string text() {
    const std::lock_guard lock(mutex);
    return body;
  }
};

class FakeReply : public HttpReply {
 public:
  explicit FakeReply(std::shared_ptr<Received> received) : received_(std::move(received)) {}

  void send(HttpResponse response) override {
    const std::lock_guard lock(received_->mutex);
    received_->body = response.body;
    received_->response = std::move(response);
    received_->is_ended = true;
  }
  void begin(HttpResponse head, std::string /*keep_alive*/) override {
    const std::lock_guard lock(received_->mutex);
    received_->response = std::move(head);
  }
  void write(std::string chunk) override {
    const std::lock_guard lock(received_->mutex);
    received_->body += chunk;
  }
  void end() override {
    const std::lock_guard lock(received_->mutex);
    received_->is_ended = true;
  }
  void on_gone(std::function<void()> callback) override {
    const std::lock_guard lock(received_->mutex);
    received_->on_gone = std::move(callback);
  }
  void set_cost(const AnswerCost& /*cost*/) override {}

 private:
  std::shared_ptr<Received> received_;
};

// Texts that the test continues by hand. A handle that goes is counted.
struct FakeTexts {
  std::mutex mutex;
  std::deque<Request> requests;
  int cancelled = 0;
};

class FakeModel : public ServedModel {
 public:
  explicit FakeModel(std::shared_ptr<FakeTexts> texts) : texts_(std::move(texts)) {}

  const Tokenizer& tokenizer() const override { return tokenizer_; }
  int64_t vocab_size() const override { return tokenizer_.n_words(); }
  int64_t max_positions() const override { return 64; }
  std::vector<int64_t> stop_ids() const override { return {9}; }
  std::vector<std::shared_ptr<void>> submit(std::vector<Request> requests) override {
    const std::lock_guard lock(texts_->mutex);
    std::vector<std::shared_ptr<void>> handles;
    for (auto& request : requests) {
      texts_->requests.push_back(std::move(request));
      handles.emplace_back(this, [texts = texts_](void*) {
        const std::lock_guard again(texts->mutex);
        ++texts->cancelled;
      });
    }
    return handles;
  }
  EngineStatus status() override {
    return {.running = 3, .waiting = 0, .kv_bytes = 0, .kv_bytes_free = 0, .kv_bytes_cached = 0};
  }

 private:
  std::shared_ptr<FakeTexts> texts_;
  Tokenizer tokenizer_{testing::data_path("tiny.model").string()};
};

class ApiTest : public ::testing::Test {
 protected:
  std::shared_ptr<Received> ask(const std::string& method,
                                const std::string& target,
                                const std::string& body = {},
                                HttpHeaders headers = {{"content-type", "application/json"}}) {
    auto received = std::make_shared<Received>();
    api_.handle({.method = method, .target = target, .headers = std::move(headers), .body = body},
                std::make_shared<FakeReply>(received));
    return received;
  }

  // Its answer, which comes from a thread of the server.
  int status_of(const std::shared_ptr<Received>& received) {
    wait_until([&] {
      const std::lock_guard lock(received->mutex);
      return received->response.status != 0;
    });
    const std::lock_guard lock(received->mutex);
    return received->response.status;
  }

  template <typename Condition>
  static void wait_until(const Condition& condition) {
    for (int i = 0; i < 10'000 && !condition(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_TRUE(condition());
  }

  void load() { api_.set_model(std::make_unique<FakeModel>(texts_)); }

  // The text that was submitted as the `index`-th.
  Request& text(size_t index) {
    wait_until([&] {
      const std::lock_guard lock(texts_->mutex);
      return texts_->requests.size() > index;
    });
    return texts_->requests[index];
  }

  static void say(const Request& request, const std::string& text) {
    request.on_token({.id = 7, .text = text, .logprob = -1, .top = {}});
  }
  static void end(const Request& request, FinishReason reason) {
    request.on_end({.reason = reason,
                    .rest = {},
                    .prompt_tokens = std::ssize(request.prompt),
                    .cached_tokens = 0,
                    .error = nullptr});
  }

  std::shared_ptr<FakeTexts> texts_ = std::make_shared<FakeTexts>();
  Api api_{{.model_name = "fake", .max_texts = 2}};
};

const std::string kChat = R"({"messages": [{"role": "user", "content": "Hi"}]})";
const std::string kStream = R"({"messages": [{"role": "user", "content": "Hi"}], "stream": true})";

TEST_F(ApiTest, SaysThatTheModelIsBeingLoaded) {
  for (const auto* path : {"/v1/chat/completions", "/v1/completions", "/tokenize"}) {
    const auto received = ask("POST", path, kChat);
    EXPECT_EQ(status_of(received), 503);
    EXPECT_TRUE(contains(received->text(), "\"code\":\"loading\""));
  }
  EXPECT_EQ(status_of(ask("GET", "/health")), 503);
  EXPECT_EQ(status_of(ask("GET", "/v1/models")), 200);
  EXPECT_EQ(status_of(ask("GET", "/metrics")), 200);
  load();
  EXPECT_EQ(status_of(ask("GET", "/health")), 200);
}

TEST_F(ApiTest, AStreamIsSentAsItComes) {
  load();
  const auto received = ask("POST", "/v1/chat/completions", kStream);
  auto& request = text(0);
  EXPECT_EQ(request.rules.stop_ids.front(), 9);
  say(request, "Hel");
  EXPECT_TRUE(contains(received->text(), R"("delta":{"content":"Hel"}})"));
  say(request, "l\xc3\xb6\n\n");
  end(request, FinishReason::kStop);
  const auto events = received->text();
  EXPECT_TRUE(contains(events, R"("delta":{"content":"l\u00f6\n\n"})"));
  EXPECT_TRUE(contains(events, R"("finish_reason":"stop","delta":{}}]})"));
  EXPECT_TRUE(events.ends_with("\n\ndata: [DONE]\n\n"));
  EXPECT_EQ(received->response.content_type, "text/event-stream; charset=utf-8");
  EXPECT_TRUE(received->is_ended);
}

TEST_F(ApiTest, AClientThatGoesEndsItsTexts) {
  load();
  const auto received =
      ask("POST", "/v1/completions", R"({"prompt": "a", "n": 2, "max_tokens": 40})");
  text(1);
  std::function<void()> gone;
  wait_until([&] {
    const std::lock_guard lock(received->mutex);
    gone = received->on_gone;
    return gone != nullptr;
  });
  // The second handle may be on its way.
  wait_until([&] {
    gone();
    const std::lock_guard lock(texts_->mutex);
    return texts_->cancelled == 2;
  });
  for (const auto& request : texts_->requests) end(request, FinishReason::kCancelled);
  EXPECT_FALSE(received->is_ended);
}

TEST_F(ApiTest, RefusesWhatThereIsNoRoomFor) {
  load();
  const auto first = ask("POST", "/v1/completions", R"({"prompt": ["a", "b"]})");
  text(1);
  const auto refused = ask("POST", "/v1/completions", R"({"prompt": "a"})");
  EXPECT_EQ(status_of(refused), 429);
  EXPECT_EQ(status_of(ask("POST", "/v1/completions", R"({"prompt": "a", "n": 3})")), 400);
  end(text(0), FinishReason::kLength);
  ask("POST", "/v1/completions", R"({"prompt": "a"})");
  text(2);
  end(text(2), FinishReason::kStop);
  end(text(1), FinishReason::kStop);
  EXPECT_EQ(status_of(first), 200);
}

TEST_F(ApiTest, AnErrorEndsTheOtherTextsOfARequest) {
  load();
  const auto received = ask("POST", "/v1/completions", R"({"prompt": ["a", "b"]})");
  auto& failed = text(1);
  failed.on_end({.reason = FinishReason::kError,
                 .rest = {},
                 .prompt_tokens = 2,
                 .cached_tokens = 0,
                 .error = std::make_exception_ptr(std::runtime_error("secret"))});
  EXPECT_EQ(status_of(received), 500);
  EXPECT_FALSE(contains(received->text(), "secret"));
  wait_until([&] {
    const std::lock_guard lock(texts_->mutex);
    return texts_->cancelled == 2;
  });
  end(text(0), FinishReason::kCancelled);
}

TEST_F(ApiTest, RefusesWhenItIsClosed) {
  load();
  api_.close();
  for (const auto* path : {"/health", "/v1/models"}) EXPECT_EQ(status_of(ask("GET", path)), 503);
  EXPECT_EQ(status_of(ask("POST", "/v1/chat/completions", kChat)), 503);
}

}  // namespace
}  // namespace gemma::server
