// All of a server, from sockets down to a small model. Under ThreadSanitizer, too.

#include <chrono>
#include <cstdlib>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/server/http_client.h"
#include "tests/testing.h"

#include <gemma/generate/causal_lm.h>
#include <gemma/server/api.h>
#include <gemma/server/http_server.h>
#include <gemma/server/json.h>

namespace gemma::server {
namespace {

using testing::Client;

constexpr int kTexts = 10;  // Different ones.
constexpr int kPlaces = 600;

int client_count() {
  const auto* const given = std::getenv("GEMMA_TEST_CLIENTS");
  return given == nullptr ? 60 : std::stoi(given);
}

std::string post(std::string_view path, const std::string& body) {
  return fmt::format(
      "POST {} HTTP/1.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
      "Content-Length: {}\r\n\r\n{}",
      path, body.size(), body);
}

// The i-th text: greedy ones, and drawn ones.
std::string text_request(int i, bool stream, int max_tokens) {
  return post("/v1/completions",
              fmt::format(R"({{"prompt": [{}, 5, 6], "max_tokens": {}, "seed": {}, )"
                          R"("temperature": {}, "stream": {}, "logit_bias": {{"1": -100}}}})",
                          4 + i % kTexts, max_tokens, i % kTexts, i % 2, stream));
}

// kPlaces texts.
std::string every_place() {
  return post("/v1/completions",
              R"({"prompt": [[4], [5], [6], [7], [8], [9]], "n": 100, "max_tokens": 1})");
}

std::string text_of(const std::string& answer) {
  const auto body = answer.substr(answer.find("\r\n\r\n") + 4);
  const auto json = JsonValue::parse(body, nullptr, /*allow_exceptions=*/false);
  return json.is_object() ? json["choices"][0]["text"].get<std::string>() : "no JSON: " + answer;
}

// An event is a line by itself, and no chunk cuts it.
std::string text_of_stream(const std::string& answer) {
  constexpr std::string_view kEvent = "data: {";
  std::string text;
  for (auto at = answer.find(kEvent); at != answer.npos; at = answer.find(kEvent, at + 1)) {
    const auto begin = at + kEvent.size() - 1;
    const auto event = JsonValue::parse(answer.substr(begin, answer.find('\n', at) - begin));
    if (!event["choices"].empty()) text += event["choices"][0]["text"].get<std::string>();
  }
  return text;
}

class ServerTest : public ::testing::Test {
 protected:
  ServerTest() {
    GemmaForCausalLM model{config()};
    testing::randomize(*model, /*seed=*/1);
    model->set_numerics(Numerics::kFast);
    api_.set_model(make_served_model(model, {.kv_memory = 1 << 22, .max_batch = 8}, {}));
  }

  ~ServerTest() override {
    api_.close();
    server_.close();
    thread_.join();
    api_.stop();
  }

  static GemmaConfig config() {
    auto config = testing::tiny_config(Architecture::kGemma3);
    config.tokenizer = testing::data_path("tiny.model").string();
    config.max_position_embeddings = 2000;
    return config;
  }

  std::string ask(const std::string& request) const {
    const Client client(server_.port());
    client.send(request);
    return client.receive_all();
  }

  std::map<std::string, double> metrics() const {
    const auto answer = ask("GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n");
    std::map<std::string, double> values;
    for (size_t begin = answer.find("\r\n\r\n") + 4, end = 0; begin < answer.size();
         begin = end + 1) {
      end = answer.find('\n', begin);
      const auto line = answer.substr(begin, end - begin);
      const auto space = line.rfind(' ');
      if (!line.starts_with('#')) values[line.substr(0, space)] = std::stod(line.substr(space + 1));
    }
    return values;
  }

  // What a client does, each in its own way.
  void be_client(int i, const std::vector<std::string>& want) const {
    const auto& text = want[static_cast<size_t>(i % kTexts)];
    const Client client(server_.port());
    switch (i % 6) {
      case 0:
      case 1:
        client.send(text_request(i, /*stream=*/false, /*max_tokens=*/20));
        EXPECT_EQ(text_of(client.receive_all()), text);
        break;
      case 2:
      case 3:
        client.send(text_request(i, /*stream=*/true, /*max_tokens=*/20));
        EXPECT_EQ(text_of_stream(client.receive_all()), text);
        break;
      case 4:  // Goes, or half goes, while it is told a text.
        client.send(text_request(i, /*stream=*/true, /*max_tokens=*/1900));
        EXPECT_TRUE(client.receive().starts_with("HTTP/1.1 200 OK\r\n"));
        if (i % 4 == 0) client.half_close();
        break;
      default:
        EXPECT_TRUE(ask("nothing that is HTTP\r\n\r\n").starts_with("HTTP/1.1 400 "));
        EXPECT_TRUE(ask("GET /health HTTP/1.1\r\nConnection: close\r\n\r\n").ends_with("\"ok\"}"));
        client.send(text_request(i, /*stream=*/false, /*max_tokens=*/1900));
    }
  }

  Api api_{{.model_name = "tiny", .max_texts = kPlaces}};
  HttpServer server_{{.port = 0, .error_body = [](int) { return "{}"; }},
                     [this](HttpRequest request, std::shared_ptr<HttpReply> reply) {
                       api_.handle(std::move(request), std::move(reply));
                     }};
  std::thread thread_{[this] { server_.run(); }};
};

TEST_F(ServerTest, ManyClientsGetWhatEachGetsAloneAndLeaveNothing) {
  std::vector<std::string> want;
  for (int i = 0; i < kTexts; ++i) {
    want.push_back(text_of(ask(text_request(i, /*stream=*/false, /*max_tokens=*/20))));
    ASSERT_FALSE(want.back().empty());
  }
  std::vector<std::future<void>> clients;
  for (int i = 0; i < client_count(); ++i) {
    clients.push_back(std::async(std::launch::async, [&want, i, this] { be_client(i, want); }));
  }
  for (auto& client : clients) client.get();
  auto values = metrics();
  const auto is_idle = [&] {
    return values["gemma:num_requests_running"] + values["gemma:num_requests_waiting"] == 0;
  };
  for (int i = 0; i < 1000 && !is_idle(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    values = metrics();
  }
  EXPECT_TRUE(is_idle());
  EXPECT_EQ(values["gemma:kv_bytes_free"] + values["gemma:kv_bytes_cached"],
            values["gemma:kv_bytes"]);
  EXPECT_GT(values["gemma:request_success_total{reason=\"cancelled\"}"], 0);
  EXPECT_TRUE(ask(every_place()).starts_with("HTTP/1.1 200 OK\r\n"));
}

}  // namespace
}  // namespace gemma::server
