#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <gemma/generate/fim_prompt.h>
#include <gemma/server/prompts.h>

namespace gemma::server {
namespace {

std::vector<int64_t> encode(const CompletionRequest::Prompt& prompt, const Tokenizer& tokenizer) {
  if (const auto* text = std::get_if<std::string>(&prompt)) return tokenizer.encode(*text);
  auto ids = std::get<std::vector<int64_t>>(prompt);
  const auto bos = tokenizer.bos_id();
  if (ids.empty() || ids.front() != bos) ids.insert(ids.begin(), bos);
  return ids;
}

void add_chat(const CompletionRequest& request, const Tokenizer& tokenizer, PromptTokens& all) {
  try {
    const ChatPrompt prompt(tokenizer);
    all.prompts.push_back(prompt.encode(request.messages));
    const auto stops = prompt.stop_ids();
    all.stop_ids.insert(all.stop_ids.end(), stops.begin(), stops.end());
  } catch (const std::invalid_argument& error) {
    throw ApiError::bad_field(request.prompt_field, error.what());
  }
}

void add_gap(const CompletionRequest& request, const Tokenizer& tokenizer, PromptTokens& all) {
  try {
    const FimPrompt prompt(tokenizer);
    all.prompts.push_back(prompt.encode(std::get<std::string>(request.prompts.front()),
                                        *request.suffix, request.files));
    const auto stops = prompt.stop_ids();
    all.stop_ids.insert(all.stop_ids.end(), stops.begin(), stops.end());
  } catch (const std::invalid_argument& error) {
    throw ApiError::bad_field("suffix", error.what(), "unsupported_value");
  }
}

}  // namespace

PromptTokens tokens_of(const CompletionRequest& request, const ServedModel& model) {
  const auto& tokenizer = model.tokenizer();
  PromptTokens all{.prompts = {}, .stop_ids = model.stop_ids()};
  if (request.is_chat) {
    add_chat(request, tokenizer, all);
  } else if (request.suffix) {
    add_gap(request, tokenizer, all);
  } else {
    for (const auto& prompt : request.prompts) all.prompts.push_back(encode(prompt, tokenizer));
  }
  for (const auto& prompt : all.prompts) {
    const auto answer = std::min<int64_t>(request.max_tokens.value_or(1), 1);
    if (std::ssize(prompt) + answer <= model.max_positions()) continue;
    throw ApiError::bad_field(
        request.prompt_field,
        fmt::format("the prompt has {} tokens, but must leave some of the model's {} positions",
                    prompt.size(), model.max_positions()),
        "context_length_exceeded");
  }
  return all;
}

}  // namespace gemma::server
