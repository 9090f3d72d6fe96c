#include <optional>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include <gemma/server/http_parser.h>

namespace gemma::server {
namespace {

const std::string kRequest =
    "POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\nX-API-Key: k\r\nContent-Length: 5\r\n\r\nhello";

std::optional<int> status_of(std::string bytes, const HttpLimits& limits = {}) {
  HttpParser parser(limits);
  return parser.put(bytes);
}

TEST(HttpParserTest, ARequestMayBeCutAnywhere) {
  for (size_t cut = 0; cut <= kRequest.size(); ++cut) {
    HttpParser parser({});
    auto pending = kRequest.substr(0, cut);
    EXPECT_EQ(parser.put(pending), std::nullopt);
    EXPECT_EQ(parser.is_begun(), cut > 0);
    EXPECT_EQ(parser.is_done(), cut == kRequest.size());
    pending += kRequest.substr(cut) + "GET /next";
    EXPECT_EQ(parser.put(pending), std::nullopt);
    ASSERT_TRUE(parser.is_done());
    EXPECT_EQ(pending, "GET /next");
    const auto request = parser.take();
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.target, "/v1/x?y=1");
    EXPECT_EQ(request.path(), "/v1/x");
    EXPECT_EQ(request.header("x-api-key"), "k");
    EXPECT_EQ(request.header("cookie"), "");
    EXPECT_EQ(request.body, "hello");
    EXPECT_TRUE(request.keep_alive && !request.is_http_10);
  }
}

TEST(HttpParserTest, LimitsAreToldAsSoonAsTheyAreKnown) {
  const HttpLimits limits{.head = 200, .body = 10};
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\nContent-Length: 11\r\n\r\n", limits), 413);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n", limits), std::nullopt);
  EXPECT_EQ(status_of("GET /" + std::string(300, 'a'), limits), 431);
  const std::string chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(status_of(chunked + "6\r\nabcdef\r\n", limits), std::nullopt);
  EXPECT_EQ(status_of(chunked + "6\r\nabcdef\r\n6\r\nabcdef\r\n", limits), 413);
}

TEST(HttpParserTest, TheSenderIsToldToGoOnOnlyWhenItWaits) {
  HttpParser parser({});
  std::string pending = "POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n";
  EXPECT_EQ(parser.put(pending), std::nullopt);
  EXPECT_TRUE(parser.is_head_done() && parser.expects_continue());
  pending = "a";
  EXPECT_EQ(parser.put(pending), std::nullopt);
  EXPECT_FALSE(parser.expects_continue());
}

TEST(HttpParserTest, RefusesWhatTwoServersCouldReadInTwoWays) {
  const auto with = [](const std::string& headers) {
    return status_of("POST / HTTP/1.1\r\n" + headers + "\r\n");
  };
  EXPECT_EQ(with("Content-Length: 1\r\nContent-Length: 2\r\n"), 400);
  EXPECT_EQ(with("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400);
  EXPECT_EQ(with("Content-Length: +1\r\n"), 400);
  EXPECT_EQ(with("Content-Length : 1\r\n"), 400);
  EXPECT_EQ(with(" X: y\r\n"), 400);
  EXPECT_EQ(with("Host: a\r\nHost: b\r\n"), 400);
  for (const std::string coding : {"xchunked", "identity", "gzip, chunked", "chunked, identity"}) {
    EXPECT_EQ(with("Transfer-Encoding: " + coding + "\r\n"), 400);
  }
  EXPECT_EQ(with("Transfer-Encoding: Chunked\r\n"), std::nullopt);
  EXPECT_EQ(status_of("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

}  // namespace
}  // namespace gemma::server
