#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <gemma/server/answer_form.h>
#include <gemma/server/json.h>
#include <gemma/text/tokenizer.h>

namespace gemma::server {

/// That of /v1/responses: an object with a message, or the events that build it up.
class ResponseForm : public AnswerForm {
 public:
  /// `repeated` are fields of the request. The tokenizer has to outlive this.
  ResponseForm(std::string model, Json repeated, const Tokenizer& tokenizer);

  const std::string& id() const override { return id_; }
  std::string whole(std::span<const ChoicePart> choices, const AnswerCost& cost) override;
  std::string begin(int64_t choice) override;
  std::string part(const ChoicePart& part) override;
  std::string end(const AnswerCost& cost) override;
  std::string error(const ApiError& error) override;

 private:
  void take(const ChoicePart& part);
  std::string event(std::string_view type, Json fields);
  std::string event_of_part(std::string_view type, Json fields);
  Json content() const;
  Json message() const;
  Json response(Json output) const;
  Json complete_response(const AnswerCost& cost) const;

  std::string id_, message_id_, model_;
  int64_t created_;
  Json repeated_;
  const Tokenizer& tokenizer_;
  std::string text_;
  Json logprobs_ = Json::array();
  std::string status_ = "in_progress";
  int64_t events_ = 0;
};

}  // namespace gemma::server
