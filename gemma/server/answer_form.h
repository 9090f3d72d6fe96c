#pragma once

#include <cstdint>
#include <span>
#include <string>

#include <gemma/server/api_error.h>
#include <gemma/server/completion_json.h>
#include <gemma/server/http.h>

namespace gemma::server {

/// How a client is told its answer: as a whole, or as a stream of events.
class AnswerForm {
 public:
  virtual ~AnswerForm() = default;

  /// What the log calls it.
  virtual const std::string& id() const = 0;

  /// The body of a whole answer.
  virtual std::string whole(std::span<const ChoicePart> choices, const AnswerCost& cost) = 0;

  /// Bytes of a stream: before the first part of a choice, which comes later,
  virtual std::string begin(int64_t choice) = 0;
  /// for the next part of a choice; a reason to end comes with the last, which has no text,
  virtual std::string part(const ChoicePart& part) = 0;
  /// when all choices have ended,
  virtual std::string end(const AnswerCost& cost) = 0;
  /// and when they end early.
  virtual std::string error(const ApiError& error) = 0;
};

}  // namespace gemma::server
