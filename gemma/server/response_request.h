#pragma once

#include <cstdint>

#include <gemma/server/completion_request.h>
#include <gemma/server/json.h>

namespace gemma::server {

/// What /v1/responses is asked for.
struct ResponseRequest {
  CompletionRequest completion;  ///< The same as a chat.
  /// Fields that the answer repeats.
  Json repeated;
};

/// The body of a request. Throws ApiError for fields that are wrong, and for what is not served:
/// nothing is kept between requests, and there are no tools.
ResponseRequest read_response_request(const JsonValue& body, int64_t vocab_size);

}  // namespace gemma::server
