#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unistd.h>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace gemma::testing {

/// A client, as a socket.
class Client {
 public:
  explicit Client(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ~Client() { ::close(socket_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void send(std::string_view text) const {
    while (!text.empty()) {
      const auto sent = ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;
      text.remove_prefix(static_cast<size_t>(sent));
    }
  }
  /// What comes next; empty at the end.
  std::string receive() const {
    std::array<char, 4096> buffer;
    const auto got = ::recv(socket_, buffer.data(), buffer.size(), 0);
    return {buffer.data(), got > 0 ? static_cast<size_t>(got) : 0};
  }
  std::string receive_all() const {
    std::string all;
    for (auto part = receive(); !part.empty(); part = receive()) all += part;
    return all;
  }
  void half_close() const { ::shutdown(socket_, SHUT_WR); }

 private:
  int socket_;
};

}  // namespace gemma::testing
