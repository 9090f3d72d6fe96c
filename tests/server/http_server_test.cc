#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/server/http_client.h"
#include "tests/testing.h"

#include <gemma/server/http_server.h>

namespace gemma::server {
namespace {

using testing::Client;
using testing::contains;

std::string get(const std::string& target) {
  return "GET " + target + " HTTP/1.1\r\nConnection: close\r\n\r\n";
}

// A server whose answers are made by threads of the test: /whole at once, /stream as ten parts, and
// /endless until the client goes.
class HttpServerTest : public ::testing::Test {
 protected:
  explicit HttpServerTest(HttpServerOptions options = {})
      : server_(with_log(std::move(options)),
                [this](const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
                  makers_.push_back(
                      std::async(std::launch::async, [this, path = std::string(request.path()),
                                                      mine = std::move(reply)]() mutable {
                        const auto last = std::move(mine);  // A future keeps what it was made of.
                        answer(path, *last);
                      }));
                }),
        thread_([this] { server_.run(); }) {}

  ~HttpServerTest() override {
    server_.close();
    thread_.join();
    for (auto& maker : makers_) maker.wait();
  }

  HttpServerOptions with_log(HttpServerOptions options) {
    options.port = 0;
    options.error_body = [](int status) { return std::to_string(status); };
    options.log = [this](const HttpLog& entry) { cut_off_ += entry.is_cut_off; };
    return options;
  }

  void answer(const std::string& path, HttpReply& reply) {
    const auto is_gone = std::make_shared<std::atomic<bool>>(false);
    reply.on_gone([is_gone] { *is_gone = true; });
    if (path == "/nothing") return;
    if (path == "/whole") return reply.send({.content_type = "text/plain", .body = "whole"});
    reply.begin({.content_type = "text/plain"}, "<still here>");
    const bool is_endless = path == "/endless";
    for (int i = 0; is_endless ? !*is_gone : i < 10; ++i) {
      reply.write(std::string(is_endless ? 1000 : 1, static_cast<char>('0' + i % 10)));
      if (path == "/slow") std::this_thread::sleep_for(std::chrono::milliseconds(40));
    }
    reply.end();
    gone_ += *is_gone;
  }

  // What the parts of a chunked body say.
  static std::string body_of(const std::string& answer) {
    std::string body;
    for (size_t at = answer.find("\r\n\r\n") + 4; at < answer.size();) {
      const auto size = std::stoul(answer.substr(at), nullptr, 16);
      at = answer.find("\r\n", at) + 2;
      body += answer.substr(at, size);
      at += size + 2;
    }
    return body;
  }

  std::atomic<int> cut_off_ = 0, gone_ = 0;
  std::vector<std::future<void>> makers_;  // Of the server's thread.
  HttpServer server_;
  std::thread thread_;
};

TEST_F(HttpServerTest, AnswersManyClientsTogether) {
  std::vector<std::future<void>> clients;
  for (int i = 0; i < 60; ++i) {
    clients.push_back(std::async(std::launch::async, [i, this] {
      const Client client(server_.port());
      client.send(get(i % 3 == 0 ? "/whole" : i % 3 == 1 ? "/stream" : "/endless"));
      if (i % 3 == 0) {
        EXPECT_TRUE(contains(client.receive_all(), "\r\n\r\nwhole"));
      } else if (i % 3 == 1) {
        EXPECT_EQ(body_of(client.receive_all()), "0123456789");
      }
      if (i % 3 != 2) return;
      EXPECT_TRUE(client.receive().starts_with("HTTP/1.1 200 OK\r\n"));
      if (i % 2 == 0) client.half_close();
    }));
  }
  for (auto& client : clients) client.get();
  for (int i = 0; i < 5000 && gone_ < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(gone_, 20);
}

TEST_F(HttpServerTest, WhatNobodyAnswersIsAFault) {
  const Client client(server_.port());
  client.send(get("/nothing"));
  EXPECT_TRUE(client.receive_all().starts_with("HTTP/1.1 500 "));
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
  const Client client(server_.port());
  client.send("GET /stream HTTP/1.1\r\n\r\nGET /whole HTTP/1.1\r\n\r\n" + get("/nothing"));
  const auto all = client.receive_all();
  EXPECT_LT(all.find("0\r\n\r\n"), all.find("whole"));
  EXPECT_LT(all.find("whole"), all.find("HTTP/1.1 500 "));
}

TEST_F(HttpServerTest, ClosesWhenWhatWasAskedIsAnswered) {
  const Client idle(server_.port());
  const Client busy(server_.port());
  busy.send("GET /slow HTTP/1.1\r\n\r\n");
  EXPECT_FALSE(busy.receive().empty());
  server_.close();
  EXPECT_TRUE(idle.receive().empty());
  EXPECT_TRUE(busy.receive_all().ends_with("\r\n0\r\n\r\n"));
}

class ImpatientServerTest : public HttpServerTest {
 protected:
  ImpatientServerTest()
      : HttpServerTest({.head_timeout = 0.5,
                        .body_timeout = 0.6,
                        .idle_timeout = 0.5,
                        .write_timeout = 1,
                        .keep_alive = 0.02,
                        .most_unread = 1 << 20,
                        .max_connections = 2}) {}
};

TEST_F(ImpatientServerTest, SlowRequestsAreRefusedAndIdleConnectionsClosed) {
  for (const std::string text : {"GET / HT", "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na"}) {
    const Client client(server_.port());
    client.send(text);
    EXPECT_TRUE(client.receive().starts_with("HTTP/1.1 408 Request Timeout\r\n"));
  }
  EXPECT_TRUE(Client(server_.port()).receive().empty());
}

TEST_F(ImpatientServerTest, AStreamThatSaysNothingShowsThatItLives) {
  const Client client(server_.port());
  client.send(get("/slow"));
  EXPECT_TRUE(contains(body_of(client.receive_all()), "0<still here>"));
}

TEST_F(ImpatientServerTest, AClientThatDoesNotReadIsCutOff) {
  const Client client(server_.port());
  client.send(get("/endless"));
  for (int i = 0; i < 10'000 && cut_off_ == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(cut_off_, 1);
}

TEST_F(ImpatientServerTest, MoreConnectionsWaitForOthersToEnd) {
  std::vector<std::future<void>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::async(std::launch::async, [this] {
      const Client client(server_.port());
      client.send(get("/stream"));
      EXPECT_EQ(body_of(client.receive_all()), "0123456789");
    }));
  }
  for (auto& client : clients) client.get();
}

}  // namespace
}  // namespace gemma::server
