#include <limits>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include <gemma/server/completion_request.h>

namespace gemma::server {
namespace {

constexpr auto kLargest = std::numeric_limits<int64_t>::max();
constexpr int64_t kMostAnswers = 128;
constexpr int64_t kMostLogprobs = 20;
constexpr size_t kMostStops = 16;
constexpr size_t kMostPrompts = 1024;

[[noreturn]] void refuse_unserved(const std::string& name) {
  throw ApiError::bad_field(name, name + " is not served here; leave it out", "unsupported_value");
}

// Whether a field asks for nothing: false, 0, an empty text, list or object, or "none".
bool asks_for_nothing(const JsonValue& value) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value.get<double>() == 0;
  return value.empty() || value == "" || value == "none" || value == "auto";
}

// What would change the answer, and cannot be done, is not passed over.
void check_unserved(const Fields& fields) {
  for (const auto* name :
       {"tools", "tool_choice", "functions", "function_call", "audio", "min_tokens", "ignore_eos",
        "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
        "grammar", "prompt_logprobs"}) {
    const auto* value = fields.find(name);
    if (value != nullptr && !asks_for_nothing(*value)) refuse_unserved(name);
  }
  const auto* format = fields.find("response_format");
  if (format != nullptr && (!format->is_object() || format->value("type", JsonValue()) != "text")) {
    refuse_unserved("response_format");
  }
}

std::vector<std::pair<int64_t, float>> read_bias(const Fields& fields, int64_t vocab_size) {
  const auto* object = fields.find("logit_bias");
  if (object == nullptr) return {};
  if (!object->is_object()) fields.refuse("logit_bias", *object, "an object of token ids");
  std::vector<std::pair<int64_t, float>> bias;
  for (const auto& [key, value] : object->items()) {
    size_t used = 0;
    int64_t token = -1;
    try {
      token = std::stoll(key, &used);
    } catch (const std::logic_error&) {  // Neither a number nor one that fits.
    }
    if (used != key.size() || token < 0 || token >= vocab_size) {
      fields.refuse("logit_bias", key,
                    fmt::format("an object of token ids from 0 to {}", vocab_size - 1));
    }
    if (!value.is_number() || value.get<double>() < -100 || value.get<double>() > 100) {
      fields.refuse("logit_bias", value, "numbers from -100 to 100");
    }
    bias.emplace_back(token, value.get<float>());
  }
  return bias;
}

std::vector<std::string> read_stops(const Fields& fields) {
  auto stops = fields.texts("stop");
  if (stops.size() > kMostStops) {
    throw ApiError::bad_field("stop", fmt::format("stop has {} texts, but must have {} at most",
                                                  stops.size(), kMostStops));
  }
  for (const auto& stop : stops) {
    if (stop.empty()) fields.refuse("stop", stop, "texts that are not empty");
  }
  return stops;
}

SamplingRules read_sampling(const Fields& fields, int64_t vocab_size) {
  SamplingRules rules;
  rules.temperature = fields.number("temperature", 0, 2).value_or(1);
  rules.top_p = fields.number("top_p", 0, 1).value_or(1);
  rules.top_k = std::max<int64_t>(0, fields.integer("top_k", -1, kLargest).value_or(0));
  rules.min_p = fields.number("min_p", 0, 1).value_or(0);
  rules.repetition_penalty = fields.number("repetition_penalty", 0.01, 100).value_or(1);
  rules.presence_penalty = fields.number("presence_penalty", -2, 2).value_or(0);
  rules.frequency_penalty = fields.number("frequency_penalty", -2, 2).value_or(0);
  rules.bias = read_bias(fields, vocab_size);
  return rules;
}

// What both kinds of request have.
CompletionRequest read_common(const Fields& fields, int64_t vocab_size) {
  check_unserved(fields);
  CompletionRequest request;
  request.rules.sampling = read_sampling(fields, vocab_size);
  const auto seed = fields.integer("seed", std::numeric_limits<int64_t>::min(), kLargest);
  if (seed) request.rules.seed = static_cast<uint64_t>(*seed);
  request.rules.stop = read_stops(fields);
  if (const auto* ids = fields.find("stop_token_ids")) {
    request.rules.stop_ids = tokens_of(*ids, fields.path_of("stop_token_ids"), vocab_size);
  }
  request.n = fields.integer("n", 1, kMostAnswers).value_or(1);
  request.stream = fields.boolean("stream").value_or(false);
  if (const auto* options = fields.find("stream_options")) {
    if (!options->is_object()) fields.refuse("stream_options", *options, "an object");
    request.include_usage =
        Fields(*options, "stream_options.").boolean("include_usage").value_or(false);
  }
  return request;
}

ChatMessage read_message(const JsonValue& message,
                         size_t index,
                         std::vector<MessageImage>& images) {
  const auto path = fmt::format("messages[{}]", index);
  if (!message.is_object()) refuse_value(path, message, "an object with a role and a content");
  const Fields fields(message, path + ".");
  const auto role = fields.text("role");
  if (!role) throw ApiError::bad_field("messages", path + " has no role");
  const auto* calls = fields.find("tool_calls");
  if (calls != nullptr && !asks_for_nothing(*calls)) refuse_unserved(path + ".tool_calls");
  try {
    const auto images_before = images.size();
    ChatMessage read{chat_role(*role), read_content(fields, index, images)};
    if (images.size() > images_before && read.role != ChatRole::kUser) {
      throw ApiError::bad_field("messages", path + " has an image, but only the user's may",
                                "unsupported_value");
    }
    return read;
  } catch (const std::invalid_argument& error) {
    throw ApiError::bad_field(path + ".role", error.what());
  }
}

CompletionRequest::Prompt read_prompt(const JsonValue& value, int64_t vocab_size) {
  if (value.is_string()) return value.get<std::string>();
  return tokens_of(value, "prompt", vocab_size);
}

// A text, tokens, or a list of either.
std::vector<CompletionRequest::Prompt> read_prompts(const Fields& fields, int64_t vocab_size) {
  const auto* prompt = fields.find("prompt");
  if (prompt == nullptr) throw ApiError::bad_field("prompt", "prompt is missing");
  const bool is_list = prompt->is_array() && !prompt->empty() && !prompt->front().is_number();
  if (!is_list) {
    if (!prompt->is_string() && !prompt->is_array()) {
      fields.refuse("prompt", *prompt, "a text, a list of token ids, or a list of these");
    }
    return {read_prompt(*prompt, vocab_size)};
  }
  if (prompt->size() > kMostPrompts) {
    throw ApiError::bad_field("prompt", fmt::format("prompt has {} texts, but must have {} at most",
                                                    prompt->size(), kMostPrompts));
  }
  std::vector<CompletionRequest::Prompt> prompts;
  for (const auto& value : *prompt) prompts.push_back(read_prompt(value, vocab_size));
  return prompts;
}

}  // namespace

CompletionRequest read_chat_request(const JsonValue& body, int64_t vocab_size) {
  const Fields fields(body);
  auto request = read_common(fields, vocab_size);
  request.is_chat = true;
  request.prompt_field = "messages";
  const auto* messages = fields.find("messages");
  if (messages == nullptr) throw ApiError::bad_field("messages", "messages is missing");
  if (!messages->is_array() || messages->empty()) {
    fields.refuse("messages", *messages, "a list with a message or more");
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    request.messages.push_back(read_message((*messages)[i], i, request.images));
  }
  request.max_tokens = fields.integer("max_completion_tokens", 1, kLargest);
  if (!request.max_tokens) request.max_tokens = fields.integer("max_tokens", 1, kLargest);
  const auto top = fields.integer("top_logprobs", 0, kMostLogprobs);
  if (fields.boolean("logprobs").value_or(false)) {
    request.rules.sampling.logprobs = top.value_or(0);
  } else if (top.value_or(0) > 0) {
    throw ApiError::bad_field("top_logprobs", "top_logprobs needs logprobs to be true");
  }
  return request;
}

CompletionRequest read_text_request(const JsonValue& body, int64_t vocab_size) {
  const Fields fields(body);
  auto request = read_common(fields, vocab_size);
  request.prompts = read_prompts(fields, vocab_size);
  request.echo = fields.boolean("echo").value_or(false);
  request.max_tokens = fields.integer("max_tokens", request.echo ? 0 : 1, kLargest).value_or(16);
  request.rules.sampling.logprobs = fields.integer("logprobs", 0, kMostLogprobs);
  if (fields.integer("best_of", 1, kMostAnswers).value_or(request.n) != request.n) {
    refuse_unserved("best_of");
  }
  request.suffix = fields.text("suffix");
  if (request.suffix && (request.prompts.size() != 1 ||
                         !std::holds_alternative<std::string>(request.prompts.front()))) {
    throw ApiError::bad_field("suffix", "suffix needs a prompt that is one text");
  }
  // What fits a gap best is wanted, as of gemma run.
  if (request.suffix && fields.find("temperature") == nullptr)
    request.rules.sampling.temperature = 0;
  if (request.suffix && request.echo) {
    throw ApiError::bad_field("echo", "echo cannot be had with suffix", "unsupported_value");
  }
  return request;
}

}  // namespace gemma::server
