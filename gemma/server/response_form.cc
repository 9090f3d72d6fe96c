#include <utility>

#include <fmt/format.h>

#include <gemma/server/request_id.h>
#include <gemma/server/response_form.h>

namespace gemma::server {

ResponseForm::ResponseForm(std::string model, Json repeated, const Tokenizer& tokenizer)
    : id_(random_id("resp_")),
      message_id_(random_id("msg_")),
      model_(std::move(model)),
      created_(seconds_since_1970()),
      repeated_(std::move(repeated)),
      tokenizer_(tokenizer) {}

void ResponseForm::take(const ChoicePart& part) {
  text_ += part.text;
  if (part.tokens) {
    for (auto& token : chat_tokens(*part.tokens, tokenizer_)) logprobs_.push_back(token);
  }
  if (part.finish_reason) {
    status_ = *part.finish_reason == FinishReason::kLength ? "incomplete" : "completed";
  }
}

Json ResponseForm::content() const {
  return {{"type", "output_text"},
          {"annotations", Json::array()},
          {"logprobs", logprobs_},
          {"text", text_}};
}

Json ResponseForm::message() const {
  Json all;
  all["id"] = message_id_;
  all["type"] = "message";
  all["status"] = status_;
  all["role"] = "assistant";
  all["content"] = status_ == "in_progress" ? Json::array() : Json::array({content()});
  return all;
}

Json ResponseForm::response(Json output) const {
  Json all;
  all["id"] = id_;
  all["object"] = "response";
  all["created_at"] = created_;
  all["status"] = status_;
  all["background"] = false;
  all["error"] = nullptr;
  all["incomplete_details"] =
      status_ == "incomplete" ? Json{{"reason", "max_output_tokens"}} : Json(nullptr);
  all["model"] = model_;
  all["output"] = std::move(output);
  for (const auto& [name, value] : repeated_.items()) all[name] = value;
  all["parallel_tool_calls"] = true;
  all["previous_response_id"] = nullptr;
  all["store"] = false;
  all["text"] = Json{{"format", Json{{"type", "text"}}}};
  all["tool_choice"] = "auto";
  all["tools"] = Json::array();
  all["truncation"] = "disabled";
  all["metadata"] = Json::object();
  all["usage"] = nullptr;
  return all;
}

Json ResponseForm::complete_response(const AnswerCost& cost) const {
  auto all = response(Json::array({message()}));
  all["usage"] = Json{{"input_tokens", cost.prompt_tokens},
                      {"input_tokens_details", Json{{"cached_tokens", cost.cached_tokens}}},
                      {"output_tokens", cost.completion_tokens},
                      {"output_tokens_details", Json{{"reasoning_tokens", 0}}},
                      {"total_tokens", cost.prompt_tokens + cost.completion_tokens}};
  return all;
}

std::string ResponseForm::whole(std::span<const ChoicePart> choices, const AnswerCost& cost) {
  take(choices.front());
  return to_text(complete_response(cost));
}

std::string ResponseForm::event(std::string_view type, Json fields) {
  Json all{{"type", type}, {"sequence_number", events_++}};
  for (auto& [name, value] : fields.items()) all[name] = std::move(value);
  return fmt::format("event: {}\ndata: {}\n\n", type, to_text(all));
}

std::string ResponseForm::event_of_part(std::string_view type, Json fields) {
  Json all{{"item_id", message_id_}, {"output_index", 0}, {"content_index", 0}};
  for (auto& [name, value] : fields.items()) all[name] = std::move(value);
  return event(type, std::move(all));
}

std::string ResponseForm::begin(int64_t /*choice*/) {
  const Json started = response(Json::array());
  auto bytes = event("response.created", {{"response", started}});
  bytes += event("response.in_progress", {{"response", started}});
  bytes += event("response.output_item.added", {{"output_index", 0}, {"item", message()}});
  bytes += event_of_part("response.content_part.added", {{"part", content()}});
  return bytes;
}

std::string ResponseForm::part(const ChoicePart& part) {
  const auto known = logprobs_.size();
  take(part);
  if (!part.finish_reason) {
    auto logprobs = Json::array();
    for (auto i = known; i < logprobs_.size(); ++i) logprobs.push_back(logprobs_[i]);
    return event_of_part("response.output_text.delta",
                         {{"delta", part.text}, {"logprobs", std::move(logprobs)}});
  }
  auto bytes =
      event_of_part("response.output_text.done", {{"text", text_}, {"logprobs", logprobs_}});
  bytes += event_of_part("response.content_part.done", {{"part", content()}});
  return bytes + event("response.output_item.done", {{"output_index", 0}, {"item", message()}});
}

std::string ResponseForm::end(const AnswerCost& cost) {
  return event("response." + status_, {{"response", complete_response(cost)}});
}

std::string ResponseForm::error(const ApiError& error) {
  status_ = "failed";
  auto failed = response(Json::array());
  failed["error"] = Json{{"code", "server_error"}, {"message", error.what()}};
  return event("response.failed", {{"response", std::move(failed)}});
}

}  // namespace gemma::server
