#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include <gemma/server/response_request.h>

namespace gemma::server {
namespace {

constexpr std::string_view kLogprobs = "message.output_text.logprobs";

[[noreturn]] void refuse_what_is_not_served(const std::string& name, std::string_view why) {
  throw ApiError::bad_field(name, fmt::format("{} is not served here: {}", name, why),
                            "unsupported_value");
}

void check_served(const Fields& fields) {
  for (const auto* name : {"previous_response_id", "conversation", "prompt"}) {
    if (fields.find(name) != nullptr) {
      refuse_what_is_not_served(name,
                                "nothing is kept between requests; send the whole conversation");
    }
  }
  if (fields.boolean("background").value_or(false)) {
    refuse_what_is_not_served("background", "answers are not kept; wait for it, or stream it");
  }
  const auto* tools = fields.find("tools");
  if (tools != nullptr && !(tools->is_array() && tools->empty())) {
    refuse_what_is_not_served("tools", "leave it out");
  }
  if (fields.text("truncation").value_or("disabled") != "disabled") {
    refuse_what_is_not_served("truncation", "shorten the conversation");
  }
}

// A part of a message -> that of a chat.
JsonValue chat_part(const JsonValue& part, const std::string& path) {
  if (!part.is_object()) refuse_value(path, part, "an object with a type");
  const Fields fields(part, path + ".");
  const auto type = fields.text("type").value_or("");
  if (type == "input_text" || type == "output_text" || type == "text") {
    const auto text = fields.text("text");
    if (!text) throw ApiError::bad_field(path, path + " has no text");
    return {{"type", "text"}, {"text", *text}};
  }
  if (type == "refusal") return part;
  if (type == "input_image") {
    const auto url = fields.text("image_url");
    if (!url) throw ApiError::bad_field(path, path + " has no image_url");
    return {{"type", "image_url"}, {"image_url", {{"url", *url}}}};
  }
  throw ApiError::bad_field(
      path + ".type",
      fmt::format("{} is of type {}, which is not served", path, to_text(Json(type.substr(0, 40)))),
      "unsupported_value");
}

JsonValue chat_message(const JsonValue& item, const std::string& path) {
  if (!item.is_object()) refuse_value(path, item, "an object with a role and a content");
  const Fields fields(item, path + ".");
  if (const auto type = fields.text("type").value_or("message"); type != "message") {
    throw ApiError::bad_field(path + ".type",
                              fmt::format("{} is of type {}, but only messages are served", path,
                                          to_text(Json(type.substr(0, 40)))),
                              "unsupported_value");
  }
  const auto role = fields.text("role");
  if (!role) throw ApiError::bad_field(path + ".role", path + " has no role");
  const auto* content = fields.find("content");
  if (content == nullptr) throw ApiError::bad_field(path + ".content", path + " has no content");
  if (content->is_string()) return {{"role", *role}, {"content", *content}};
  if (!content->is_array()) fields.refuse("content", *content, "a text, or a list of parts");
  auto parts = JsonValue::array();
  for (size_t i = 0; i < content->size(); ++i) {
    parts.push_back(chat_part((*content)[i], fmt::format("{}.content[{}]", path, i)));
  }
  return {{"role", *role}, {"content", std::move(parts)}};
}

JsonValue chat_messages(const Fields& fields) {
  auto messages = JsonValue::array();
  if (const auto text = fields.text("instructions"); text && !text->empty()) {
    messages.push_back(JsonValue{{"role", "system"}, {"content", *text}});
  }
  const auto* input = fields.find("input");
  if (input == nullptr) throw ApiError::bad_field("input", "input is missing");
  if (input->is_string()) {
    messages.push_back(JsonValue{{"role", "user"}, {"content", *input}});
  } else if (input->is_array() && !input->empty()) {
    for (size_t i = 0; i < input->size(); ++i) {
      messages.push_back(chat_message((*input)[i], fmt::format("input[{}]", i)));
    }
  } else {
    fields.refuse("input", *input, "a text, or a list with a message or more");
  }
  return messages;
}

// Whether `include` asks for probabilities. Other parts of an answer there are none.
bool includes_logprobs(const Fields& fields) {
  bool is_included = false;
  for (const auto& name : fields.texts("include")) is_included |= name == kLogprobs;
  return is_included;
}

// Of `text`, as a chat has it.
void add_format(const Fields& fields, JsonValue& chat) {
  const auto* text = fields.find("text");
  if (text == nullptr) return;
  if (!text->is_object()) fields.refuse("text", *text, "an object");
  const auto* format = Fields(*text, "text.").find("format");
  if (format == nullptr) return;
  if (!format->is_object()) refuse_value("text.format", *format, "an object with a type");
  const Fields of_format(*format, "text.format.");
  const auto type = of_format.text("type").value_or("");
  if (type == "json_schema") {
    auto schema = *format;
    schema.erase("type");
    chat["response_format"] = {{"type", type}, {"json_schema", std::move(schema)}};
  } else {
    chat["response_format"] = {{"type", type}};
  }
}

// What is the same in both, and what a chat calls by another name.
JsonValue chat_body(const Fields& fields, const JsonValue& body) {
  JsonValue chat = body;
  for (const auto* name : {"input", "instructions", "text", "include", "tools", "tool_choice",
                           "max_output_tokens", "max_completion_tokens", "logprobs"}) {
    chat.erase(name);
  }
  chat["messages"] = chat_messages(fields);
  if (const auto* most = fields.find("max_output_tokens")) chat["max_tokens"] = *most;
  if (includes_logprobs(fields)) {
    chat["logprobs"] = true;
  } else {
    chat.erase("top_logprobs");
  }
  add_format(fields, chat);
  return chat;
}

Json repeated_fields(const Fields& fields, const CompletionRequest& request) {
  Json all;
  const auto text = fields.text("instructions");
  all["instructions"] = text ? Json(*text) : Json(nullptr);
  all["max_output_tokens"] = request.max_tokens ? Json(*request.max_tokens) : Json(nullptr);
  all["temperature"] = request.rules.sampling.temperature;
  all["top_p"] = request.rules.sampling.top_p;
  return all;
}

// By the name that the client knows it by.
[[noreturn]] void throw_renamed(const ApiError& error) {
  auto param = error.param();
  if (param.starts_with("messages")) param = "input";
  if (param == "max_tokens") param = "max_output_tokens";
  if (param.starts_with("response_format")) param = "text.format";
  throw ApiError(error.status(), error.what(), error.code(), std::move(param));
}

}  // namespace

ResponseRequest read_response_request(const JsonValue& body, int64_t vocab_size) {
  const Fields fields(body);
  check_served(fields);
  const auto chat = chat_body(fields, body);
  ResponseRequest request;
  try {
    request.completion = read_chat_request(chat, vocab_size);
  } catch (const ApiError& error) {
    throw_renamed(error);
  }
  request.completion.prompt_field = "input";
  if (request.completion.n != 1) fields.refuse("n", body["n"], "1");
  request.repeated = repeated_fields(fields, request.completion);
  return request;
}

}  // namespace gemma::server
