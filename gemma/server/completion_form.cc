#include <utility>

#include <gemma/server/completion_form.h>
#include <gemma/server/request_id.h>
#include <gemma/server/sse.h>

namespace gemma::server {
namespace {

constexpr std::string_view kDone = "[DONE]";

}  // namespace

CompletionForm::CompletionForm(bool is_chat,
                               std::string model,
                               bool include_usage,
                               const Tokenizer& tokenizer)
    : head_{.is_chat = is_chat,
            .id = random_id(is_chat ? "chatcmpl-" : "cmpl-"),
            .model = std::move(model),
            .created = seconds_since_1970()},
      include_usage_(include_usage),
      tokenizer_(tokenizer) {}

std::string CompletionForm::whole(std::span<const ChoicePart> choices, const AnswerCost& cost) {
  return to_text(whole_answer(head_, choices, cost, tokenizer_));
}

std::string CompletionForm::begin(int64_t choice) {
  return head_.is_chat ? sse_event(to_text(first_chunk(head_, choice))) : std::string();
}

std::string CompletionForm::part(const ChoicePart& part) {
  return sse_event(to_text(chunk(head_, part, tokenizer_)));
}

std::string CompletionForm::end(const AnswerCost& cost) {
  const auto usage = include_usage_ ? sse_event(to_text(usage_chunk(head_, cost))) : std::string();
  return usage + sse_event(kDone);
}

std::string CompletionForm::error(const ApiError& error) {
  return sse_event(error.body()) + sse_event(kDone);
}

}  // namespace gemma::server
