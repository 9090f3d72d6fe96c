#include <limits>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include <gemma/server/infill.h>
#include <gemma/server/request_id.h>
#include <gemma/server/sse.h>

namespace gemma::server {
namespace {

// Other files, each with its name on a line before it.
std::vector<std::string> read_files(const Fields& fields) {
  const auto* list = fields.find("input_extra");
  if (list == nullptr) return {};
  if (!list->is_array()) fields.refuse("input_extra", *list, "a list of files");
  std::vector<std::string> files;
  for (size_t i = 0; i < list->size(); ++i) {
    const auto path = fmt::format("input_extra[{}]", i);
    const auto& file = (*list)[i];
    if (!file.is_object()) refuse_value(path, file, "an object with a text");
    const Fields of_file(file, path + ".");
    const auto text = of_file.text("text");
    if (!text) throw ApiError::bad_field(path, path + " has no text");
    const auto name = of_file.text("filename");
    files.push_back(name ? *name + "\n" + *text : *text);
  }
  return files;
}

}  // namespace

// llama.cpp puts `prompt` after the marker of what is missing; before it comes what is before.
CompletionRequest read_infill_request(const JsonValue& body, int64_t vocab_size) {
  const Fields fields(body);
  const auto before = fields.text("input_prefix");
  const auto after = fields.text("input_suffix");
  if (!before || !after) {
    const std::string name = before ? "input_suffix" : "input_prefix";
    throw ApiError::bad_field(name, name + " is missing");
  }
  auto rules = body;
  rules["prompt"] = *before + fields.text("prompt").value_or("");
  rules["suffix"] = *after;
  rules.erase("max_tokens");
  rules.erase("logprobs");
  rules.erase("echo");
  auto request = read_text_request(rules, vocab_size);
  if (request.n != 1) fields.refuse("n", body["n"], "1");
  const auto most = fields.integer("n_predict", -1, std::numeric_limits<int64_t>::max());
  request.max_tokens = most.value_or(-1) < 0 ? std::nullopt : most;
  request.files = read_files(fields);
  request.prompt_field = "input_prefix";
  return request;
}

InfillForm::InfillForm(std::string model) : id_(random_id("infill-")), model_(std::move(model)) {}

Json InfillForm::last(std::string content, FinishReason reason, const AnswerCost& cost) const {
  Json all;
  all["content"] = std::move(content);
  all["stop"] = true;
  all["model"] = model_;
  all["stop_type"] = reason == FinishReason::kLength ? "limit" : "eos";
  all["tokens_predicted"] = cost.completion_tokens;
  all["tokens_evaluated"] = cost.prompt_tokens;
  all["tokens_cached"] = cost.cached_tokens;
  return all;
}

std::string InfillForm::whole(std::span<const ChoicePart> choices, const AnswerCost& cost) {
  const auto& only = choices.front();
  return to_text(last(only.text, only.finish_reason.value_or(reason_), cost));
}

std::string InfillForm::begin(int64_t /*choice*/) { return {}; }

std::string InfillForm::part(const ChoicePart& part) {
  if (part.finish_reason) reason_ = *part.finish_reason;
  if (part.text.empty()) return {};
  return sse_event(to_text(Json{{"content", part.text}, {"stop", false}}));
}

std::string InfillForm::end(const AnswerCost& cost) {
  return sse_event(to_text(last({}, reason_, cost)));
}

std::string InfillForm::error(const ApiError& error) { return sse_event(error.body()); }

}  // namespace gemma::server
