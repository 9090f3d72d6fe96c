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

std::vector<ChatMessage> with_images(const CompletionRequest& request, ServedModel& model) {
  if (!request.images.empty() && !model.sees_images()) {
    throw ApiError::bad_field(
        "messages", request.images.front().path + " is an image, but this model reads text only",
        "unsupported_value");
  }
  auto messages = request.messages;
  for (const auto& image : request.images) {
    try {
      messages[image.message].images.push_back(
          {image.at, model.image_tokens(image.file, image.path)});
    } catch (const std::invalid_argument& error) {
      throw ApiError::bad_field("messages", error.what(), "invalid_image");
    }
  }
  return messages;
}

void add_chat(const CompletionRequest& request, ServedModel& model, PromptTokens& all) {
  try {
    const ChatPrompt prompt(model.tokenizer());
    auto [ids, images] = prompt.encode_with_images(with_images(request, model));
    all.prompts.push_back(std::move(ids));
    all.images = std::move(images);
    const auto stops = prompt.stop_ids();
    all.stop_ids.insert(all.stop_ids.end(), stops.begin(), stops.end());
  } catch (const std::invalid_argument& error) {
    throw ApiError::bad_field("messages", error.what());
  }
}

// PaliGemma's.
void add_message(const CompletionRequest& request, ServedModel& model, PromptTokens& all) {
  const auto& messages = request.messages;
  const bool is_one = messages.size() == 1 && messages.front().role == ChatRole::kUser;
  if (!is_one || std::ranges::any_of(request.images, [](const auto& i) { return i.at > 0; })) {
    throw ApiError::bad_field("messages",
                              "this model knows no chat: it answers one message of the user's, "
                              "with images in front of its text",
                              "unsupported_value");
  }
  try {
    auto [ids, images] = model.message_tokens(request.images, messages.front().text);
    all.prompts.push_back(std::move(ids));
    all.images = std::move(images);
  } catch (const std::invalid_argument& error) {
    throw ApiError::bad_field("messages", error.what(), "invalid_image");
  }
}

void add_gap(const CompletionRequest& request, const Tokenizer& tokenizer, PromptTokens& all) {
  try {
    const FimPrompt prompt(tokenizer);
    all.prompts.push_back(
        prompt.encode(std::get<std::string>(request.prompts.front()), *request.suffix));
    const auto stops = prompt.stop_ids();
    all.stop_ids.insert(all.stop_ids.end(), stops.begin(), stops.end());
  } catch (const std::invalid_argument& error) {
    throw ApiError::bad_field("suffix", error.what(), "unsupported_value");
  }
}

}  // namespace

PromptTokens tokens_of(const CompletionRequest& request, ServedModel& model) {
  const auto& tokenizer = model.tokenizer();
  PromptTokens all{.prompts = {}, .images = {}, .stop_ids = model.stop_ids()};
  if (model.takes_one_message()) {
    if (!request.is_chat) {
      throw ApiError::bad_field("prompt", "this model sees images; use /v1/chat/completions",
                                "unsupported_value");
    }
    add_message(request, model, all);
  } else if (request.is_chat) {
    add_chat(request, model, all);
  } else if (request.suffix) {
    add_gap(request, tokenizer, all);
  } else {
    for (const auto& prompt : request.prompts) all.prompts.push_back(encode(prompt, tokenizer));
  }
  for (const auto& prompt : all.prompts) {
    if (std::ssize(prompt) < model.max_positions()) continue;
    throw ApiError::bad_field(
        request.is_chat ? "messages" : "prompt",
        fmt::format("the prompt has {} tokens, but must leave some of the model's {} positions",
                    prompt.size(), model.max_positions()),
        "context_length_exceeded");
  }
  return all;
}

}  // namespace gemma::server
