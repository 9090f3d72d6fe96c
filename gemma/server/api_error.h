#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include <gemma/server/http.h>

namespace gemma::server {

/// What a client is told when its request cannot be answered, in the form of OpenAI's API:
/// {"error": {"message", "type", "param", "code"}}.
class ApiError : public std::runtime_error {
 public:
  ApiError(int status,
           const std::string& message,
           std::string_view code = {},
           std::string param = {});

  /// 400 for the field `param` of the request.
  static ApiError bad_field(std::string param,
                            const std::string& message,
                            std::string_view code = "invalid_value");
  /// 500; what went wrong is in the log.
  static ApiError internal();

  int status() const { return status_; }
  const std::string& param() const { return param_; }
  const std::string& code() const { return code_; }

  /// The same, with a header.
  ApiError header(std::string name, std::string value) &&;
  /// The same, to be tried again after so many seconds.
  ApiError retry_after(int seconds) &&;
  /// The same, not to be tried again, which OpenAI's clients do by themselves for 408, 409, 429,
  /// and 500 or more.
  ApiError useless_again() &&;

  /// The object.
  std::string body() const;
  HttpResponse response() const;

 private:
  int status_;
  std::string code_, param_;
  HttpHeaders headers_;
};

}  // namespace gemma::server
