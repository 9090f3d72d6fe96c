#pragma once

#include <string>

#include <gemma/server/http.h>

namespace gemma::server {

/// An answered request on one line, for people.
std::string log_line(const HttpLog& entry);
/// The same as an object of JSON.
std::string log_json(const HttpLog& entry);

/// The body of the answer to a request that cannot be read.
std::string unreadable_body(int status);

}  // namespace gemma::server
