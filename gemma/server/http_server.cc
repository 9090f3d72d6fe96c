#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <fmt/format.h>

#include <gemma/server/http_exchange.h>
#include <gemma/server/http_frame.h>
#include <gemma/server/http_server.h>
#include <gemma/server/request_id.h>

namespace gemma::server {
namespace {

namespace asio = boost::asio;
using asio::awaitable;
using asio::ip::tcp;
using Clock = std::chrono::steady_clock;
using Error = boost::system::error_code;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr size_t kReadSize = 16 << 10;
// What comes before the answer to an earlier request is out waits in so many bytes.
constexpr size_t kMostPending = 256 << 10;
// Seconds that a refused request is read on, so that the client sees why before the connection
// ends.
constexpr double kLinger = 2;

Clock::duration seconds(double count) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(count));
}

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

class HttpConnection;

struct HttpServer::Impl {
  Impl(HttpServerOptions given, HttpHandler handle)
      : options(std::move(given)), handler(std::move(handle)) {}
  ~Impl() { is_gone = true; }

  void listen();
  awaitable<void> accept();

  bool is_gone = false;  // What is left of connections goes with `io`, after the rest.
  std::set<HttpConnection*> connections;
  HttpServerOptions options;
  HttpHandler handler;
  asio::io_context io{1};
  tcp::acceptor acceptor{io};
  tcp::endpoint endpoint;
  asio::steady_timer room{io};  // Cancelled when a connection ends.
  bool is_closing = false;
};

// A client's connection, and its requests one after the other. One coroutine reads what comes, so
// that a client that goes is noticed whatever the other one does.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(HttpServer::Impl& server, tcp::socket socket)
      : server_(server), socket_(std::move(socket)) {
    Error error;
    const auto remote = socket_.remote_endpoint(error);
    if (!error) client_ = remote.address().to_string();
    socket_.set_option(tcp::no_delay(true), error);
    server_.connections.insert(this);
  }

  ~HttpConnection() {
    if (server_.is_gone) return;
    server_.connections.erase(this);
    server_.room.cancel();
  }

  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  void start() {
    const auto self = shared_from_this();
    asio::co_spawn(server_.io, [self] { return self->read(); }, asio::detached);
    asio::co_spawn(server_.io, [self] { return self->serve(); }, asio::detached);
  }

  // Something that serve() waits for may have come.
  void wake() { changed_.cancel(); }

 private:
  awaitable<void> read();
  awaitable<void> serve();
  awaitable<std::optional<int>> receive(HttpParser& parser);
  awaitable<bool> answer(HttpRequest request);
  awaitable<void> refuse(int status);
  awaitable<bool> write(std::string bytes);
  awaitable<bool> wait(double timeout);
  std::shared_ptr<HttpExchange> make_exchange();
  void close();
  void log(const HttpLog& entry) const;

  HttpServer::Impl& server_;
  tcp::socket socket_;
  asio::steady_timer changed_{server_.io}, drained_{server_.io};
  std::string client_, pending_;
  std::shared_ptr<HttpExchange> exchange_;  // Of the request that is being answered.
  bool is_over_ = false;                    // Nothing more comes from the client.
};

// Waits for wake(), or so many seconds -> false when they are over.
awaitable<bool> HttpConnection::wait(double timeout) {
  changed_.expires_after(seconds(timeout));
  const auto [error] = co_await changed_.async_wait(kAwait);
  co_return static_cast<bool>(error);
}

awaitable<void> HttpConnection::read() {
  std::string buffer(kReadSize, '\0');
  while (socket_.is_open()) {
    const auto [error, size] = co_await socket_.async_read_some(asio::buffer(buffer), kAwait);
    if (error) break;
    pending_.append(buffer, 0, size);
    wake();
    while (pending_.size() > kMostPending && socket_.is_open()) {
      drained_.expires_at(Clock::time_point::max());
      co_await drained_.async_wait(kAwait);
    }
  }
  is_over_ = true;
  if (exchange_) exchange_->set_gone();
  wake();
}

// -> whether everything was written.
awaitable<bool> HttpConnection::write(std::string bytes) {
  asio::steady_timer deadline(server_.io, seconds(server_.options.write_timeout));
  deadline.async_wait([self = shared_from_this()](const Error& error) {
    if (!error) self->close();
  });
  const auto [error, size] = co_await asio::async_write(socket_, asio::buffer(bytes), kAwait);
  co_return size == bytes.size();
}

void HttpConnection::close() {
  Error ignored;
  socket_.close(ignored);
  drained_.cancel();
}

awaitable<void> HttpConnection::serve() {
  while (!is_over_ && !server_.is_closing) {
    HttpParser parser(server_.options.limits);
    const auto refused = co_await receive(parser);
    if (refused) {
      co_await refuse(*refused);
      break;
    }
    if (!parser.is_done()) break;
    const bool goes_on = co_await answer(parser.take());
    if (!goes_on) break;
  }
  close();
}

// Reads a request -> the status to refuse it with. If it is not done then, nothing more comes.
awaitable<std::optional<int>> HttpConnection::receive(HttpParser& parser) {
  const auto& options = server_.options;
  auto start = Clock::now();
  bool was_begun = false, was_told = false;
  for (;;) {
    const auto status = parser.put(pending_);
    if (status) co_return status;
    drained_.cancel();
    if (parser.is_done() || is_over_) break;
    if (!parser.is_begun() && server_.is_closing) break;
    if (parser.is_begun() && !std::exchange(was_begun, true)) start = Clock::now();
    if (parser.expects_continue() && !std::exchange(was_told, true)) {
      const bool told = co_await write("HTTP/1.1 100 Continue\r\n\r\n");
      if (!told) break;
      continue;
    }
    const auto timeout = !was_begun              ? options.idle_timeout
                         : parser.is_head_done() ? options.body_timeout
                                                 : options.head_timeout;
    const auto left = timeout - since(start);
    bool is_woken = false;
    if (left > 0) is_woken = co_await wait(left);
    if (is_woken) continue;
    if (was_begun) co_return 408;
    break;
  }
  co_return std::nullopt;
}

// It is woken from any thread.
std::shared_ptr<HttpExchange> HttpConnection::make_exchange() {
  return std::make_shared<HttpExchange>(server_.options.most_unread,
                                        [&io = server_.io, weak = weak_from_this()] {
                                          asio::post(io, [weak] {
                                            if (const auto self = weak.lock()) self->wake();
                                          });
                                        });
}

// -> whether the connection goes on.
awaitable<bool> HttpConnection::answer(HttpRequest request) {
  const auto start = Clock::now();
  HttpLog entry{.client = client_,
                .id = random_id("req-"),
                .method = request.method,
                .target = request.target,
                .status = 0,
                .is_cut_off = false,
                .seconds = 0,
                .cost = {}};
  AnswerFrame frame{.is_head_request = request.method == "HEAD",
                    .is_chunked = !request.is_http_10,
                    .keep_alive = request.keep_alive,
                    .id = entry.id};
  const auto exchange = exchange_ = make_exchange();
  server_.handler(std::move(request), HttpExchange::reply_of(exchange));
  for (bool is_ended = false; !is_ended;) {
    auto part = exchange->take();
    if (part.head) {
      entry.status = part.head->status;
      frame.keep_alive = frame.keep_alive && !server_.is_closing;
    }
    is_ended = part.is_ended;
    entry.is_cut_off = part.is_cut_off || (is_over_ && !is_ended);
    const auto bytes = framed(std::move(part), frame);
    if (!bytes.empty()) {  // More may have come when they are written.
      const bool is_written = co_await write(bytes);
      entry.is_cut_off = entry.is_cut_off || !is_written;
    }
    if (entry.is_cut_off) break;
    if (is_ended || !bytes.empty()) continue;
    const auto sign = exchange->keep_alive();
    const bool is_woken = co_await wait(server_.options.keep_alive);
    if (!is_woken && !sign.empty()) exchange->write(sign);
  }
  exchange_.reset();
  if (entry.is_cut_off) exchange->set_gone();
  entry.seconds = since(start);
  entry.cost = exchange->cost();
  log(entry);
  co_return frame.keep_alive && !entry.is_cut_off;
}

// The client may still send: it would not see the answer if the connection ended at once.
awaitable<void> HttpConnection::refuse(int status) {
  const auto start = Clock::now();
  HttpLog entry{.client = client_,
                .id = random_id("req-"),
                .method = {},
                .target = {},
                .status = status,
                .is_cut_off = false,
                .seconds = 0,
                .cost = {}};
  HttpExchange::Part part{
      .head = HttpResponse{.status = status, .body = server_.options.error_body(status)},
      .is_whole = true,
      .bytes = {},
      .is_ended = true,
      .is_cut_off = false};
  AnswerFrame frame{
      .is_head_request = false, .is_chunked = true, .keep_alive = false, .id = entry.id};
  const bool is_written = co_await write(framed(std::move(part), frame));
  entry.is_cut_off = !is_written;
  log(entry);
  Error ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  while (!is_over_ && since(start) < kLinger) {
    pending_.clear();
    drained_.cancel();
    co_await wait(0.1);
  }
}

void HttpConnection::log(const HttpLog& entry) const {
  if (server_.options.log) server_.options.log(entry);
}

// Throws what says why it cannot.
void HttpServer::Impl::listen() {
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(options.host, std::to_string(options.port),
                                      tcp::resolver::passive | tcp::resolver::numeric_service);
  endpoint = found.begin()->endpoint();
  acceptor.open(endpoint.protocol());
  acceptor.set_option(tcp::acceptor::reuse_address(true));
  acceptor.bind(endpoint);
  acceptor.listen();
  endpoint = acceptor.local_endpoint();
}

awaitable<void> HttpServer::Impl::accept() {
  while (acceptor.is_open()) {
    if (connections.size() >= options.max_connections) {
      room.expires_at(Clock::time_point::max());
      co_await room.async_wait(kAwait);
      continue;
    }
    auto [error, socket] = co_await acceptor.async_accept(kAwait);
    if (!error) {
      std::make_shared<HttpConnection>(*this, std::move(socket))->start();
    } else if (acceptor.is_open()) {  // No file is left, for one.
      room.expires_after(seconds(0.1));
      co_await room.async_wait(kAwait);
    }
  }
}

HttpServer::HttpServer(HttpServerOptions options, HttpHandler handler)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(handler))) {
  try {
    impl_->listen();
  } catch (const boost::system::system_error& error) {
    throw std::runtime_error(fmt::format("cannot listen on {} port {}: {}", impl_->options.host,
                                         impl_->options.port, error.code().message()));
  }
  asio::co_spawn(impl_->io, [server = impl_.get()] { return server->accept(); }, asio::detached);
}

HttpServer::~HttpServer() = default;

std::string HttpServer::url() const {
  const auto address = impl_->endpoint.address();
  const auto host =
      address.is_v6() ? fmt::format("[{}]", address.to_string()) : address.to_string();
  return fmt::format("http://{}:{}", host, port());
}

uint16_t HttpServer::port() const { return impl_->endpoint.port(); }

bool HttpServer::is_local() const { return impl_->endpoint.address().is_loopback(); }

void HttpServer::run() { impl_->io.run(); }

void HttpServer::close() {
  asio::post(impl_->io, [server = impl_.get()] {
    server->is_closing = true;
    Error ignored;
    server->acceptor.close(ignored);
    server->room.cancel();
    for (auto* connection : server->connections) connection->wake();
  });
}

void HttpServer::stop() { impl_->io.stop(); }

}  // namespace gemma::server
