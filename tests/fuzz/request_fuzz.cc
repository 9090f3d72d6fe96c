// What the server reads of a request, on any bytes: they come in pieces, and are a request or are
// refused with a status; its body is an object of JSON or is refused with an error that clients can
// read. Bytes that begin with a brace are a body, for mutations that would not keep its length.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/fuzz/checks.h"

#include <gemma/server/base64.h>
#include <gemma/server/http_parser.h>
#include <gemma/server/json.h>
#include <gemma/server/message_content.h>

namespace {

using gemma::fuzz::require;
using gemma::server::ApiError;
using gemma::server::Fields;
using gemma::server::HttpParser;
using gemma::server::JsonValue;

constexpr gemma::server::HttpLimits kLimits{.head = 2000, .body = 20'000};
constexpr int64_t kVocabSize = 1000;

// An error is an object on one line of ASCII.
template <typename Read>
void read_or_refuse(const Read& read) {
  try {
    read();
  } catch (const ApiError& error) {
    const auto body = error.body();
    require(error.status() == 400 && body.size() < 2000 + 6 * error.param().size());
    require(std::ranges::all_of(body, [](char c) { return c >= ' ' && c < 0x7f; }));
    require(JsonValue::parse(body)["error"]["code"].is_string());
  }
}

void read_base64(const std::string& text) {
  const auto bytes = gemma::server::from_base64(text);
  require(!bytes || gemma::server::to_base64(std::as_bytes(std::span(*bytes))) == text);
}

void read_body(std::string_view body) {
  read_or_refuse([&] {
    const auto object = gemma::server::parse_body(body);
    const Fields fields(object);
    read_or_refuse([&] {
      std::vector<gemma::server::MessageImage> images;
      const auto text = gemma::server::read_content(fields, 0, images);
      for (const auto& image : images) require(image.at <= text.size());
    });
    for (const auto& [key, value] : object.items()) {
      const auto* const name = key.c_str();
      read_or_refuse([&] { fields.number(name, 0, 2); });
      read_or_refuse([&] {
        const auto number = fields.integer(name, -5, std::numeric_limits<int64_t>::max());
        require(!number || *number >= -5);
      });
      read_or_refuse([&] { fields.boolean(name); });
      read_or_refuse([&] { fields.text(name); });
      read_or_refuse([&] { fields.texts(name); });
      read_base64(key);
      read_or_refuse([&] {
        for (const auto token : gemma::server::tokens_of(value, key, kVocabSize)) {
          require(token >= 0 && token < kVocabSize);
        }
      });
    }
  });
}

// The first byte says how long the pieces are.
void read_request(std::string_view bytes) {
  if (bytes.empty()) return;
  const auto piece = static_cast<size_t>(static_cast<unsigned char>(bytes.front())) + 1;
  bytes.remove_prefix(1);
  HttpParser parser(kLimits);
  std::string pending;
  while (!bytes.empty() && !parser.is_done()) {
    pending += bytes.substr(0, piece);
    bytes.remove_prefix(std::min(piece, bytes.size()));
    if (const auto status = parser.put(pending)) {
      require(*status == 400 || *status == 413 || *status == 431);
      return;
    }
    require(pending.size() <= kLimits.head + piece || parser.is_head_done());
  }
  if (!parser.is_done()) return;
  const auto request = parser.take();
  require(request.body.size() <= kLimits.body && request.path().size() <= request.target.size());
  read_body(request.body);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.starts_with('{')) {
    read_body(bytes);
  } else {
    read_request(bytes);
  }
  return 0;
}
