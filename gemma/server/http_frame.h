#pragma once

#include <string>

#include <gemma/server/http_exchange.h>

namespace gemma::server {

/// How an answer is put on the wire.
struct AnswerFrame {
  bool is_head_request;  ///< Of the method HEAD: the body is left out.
  bool is_chunked;       ///< A body of unknown length is sent in chunks; else it ends with the
                         ///< connection.
  bool keep_alive;       ///< The connection goes on after it. Set to false where it cannot.
  std::string id;
};

/// The bytes of a part of an answer.
std::string framed(HttpExchange::Part part, AnswerFrame& frame);

}  // namespace gemma::server
