#include <utility>

#include <gemma/server/api_error.h>
#include <gemma/server/json.h>

namespace gemma::server {
namespace {

std::string_view type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 429:
      return "rate_limit_error";
    case 500:
      return "server_error";
    case 503:
      return "unavailable_error";
    default:
      return "invalid_request_error";
  }
}

Json text_or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

}  // namespace

ApiError::ApiError(int status, const std::string& message, std::string_view code, std::string param)
    : std::runtime_error(message), status_(status), code_(code), param_(std::move(param)) {}

ApiError ApiError::bad_field(std::string param, const std::string& message, std::string_view code) {
  return {400, message, code, std::move(param)};
}

ApiError ApiError::internal() {
  return ApiError(500, "the server failed to answer; its log says why", "internal_error")
      .useless_again();
}

ApiError ApiError::header(std::string name, std::string value) && {
  headers_.emplace_back(std::move(name), std::move(value));
  return std::move(*this);
}

ApiError ApiError::retry_after(int seconds) && {
  return std::move(*this).header("Retry-After", std::to_string(seconds));
}

ApiError ApiError::useless_again() && { return std::move(*this).header("x-should-retry", "false"); }

std::string ApiError::body() const {
  Json error;
  error["message"] = what();
  error["type"] = type_of(status_);
  error["param"] = text_or_null(param_);
  error["code"] = text_or_null(code_);
  return to_text(Json{{"error", std::move(error)}});
}

HttpResponse ApiError::response() const {
  return {.status = status_, .body = body(), .headers = headers_};
}

}  // namespace gemma::server
