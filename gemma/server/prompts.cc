#include <algorithm>
#include <array>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <gemma/generate/fim_prompt.h>
#include <gemma/server/prompts.h>

namespace gemma::server {
namespace {

[[noreturn]] void refuse_length(const CompletionRequest& request,
                                const ServedModel& model,
                                std::string_view tokens) {
  // Clients know the error by these words of OpenAI's.
  throw ApiError::bad_field(
      request.prompt_field,
      fmt::format("this model's maximum context length is {} tokens, but the prompt has {} and "
                  "must leave room; shorten it",
                  model.max_positions(), tokens),
      "context_length_exceeded");
}

// A text of some megabytes takes the tokenizer many seconds: a prompt that its first parts show to
// be far too long goes no further.
void check_length(const CompletionRequest& request,
                  const ServedModel& model,
                  std::span<const std::string_view> texts) {
  constexpr size_t kPart = 64 << 10;
  const auto most = 2 * model.max_positions();
  size_t bytes = 0;
  for (const auto text : texts) bytes += text.size();
  if (std::cmp_less_equal(bytes, std::max<int64_t>(most, kPart))) return;
  int64_t tokens = 0;
  for (const auto text : texts) {
    for (size_t at = 0; at < text.size(); at += kPart) {
      tokens += std::ssize(model.tokenizer().encode(text.substr(at, kPart), /*bos=*/false));
      if (tokens > most) refuse_length(request, model, fmt::format("more than {}", most));
    }
  }
}

void check_lengths(const CompletionRequest& request, const ServedModel& model) {
  std::vector<std::string_view> texts(request.messages.size());
  std::ranges::transform(request.messages, texts.begin(), &ChatMessage::text);
  check_length(request, model, texts);
  for (const auto& prompt : request.prompts) {
    const auto* const text = std::get_if<std::string>(&prompt);
    if (text == nullptr) continue;
    const std::string_view suffix = request.suffix ? std::string_view(*request.suffix) : "";
    check_length(request, model, std::array{std::string_view(*text), suffix});
  }
}

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
    throw ApiError::bad_field(request.prompt_field, error.what());
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
    all.prompts.push_back(prompt.encode(std::get<std::string>(request.prompts.front()),
                                        *request.suffix, request.files));
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
  check_lengths(request, model);
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
    const auto answer = std::min<int64_t>(request.max_tokens.value_or(1), 1);
    if (std::ssize(prompt) + answer <= model.max_positions()) continue;
    refuse_length(request, model, std::to_string(prompt.size()));
  }
  return all;
}

}  // namespace gemma::server
