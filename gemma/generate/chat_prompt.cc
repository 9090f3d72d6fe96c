#include <array>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include <gemma/generate/chat_prompt.h>
#include <gemma/generate/prompt_builder.h>

namespace gemma {
namespace {

constexpr std::string_view kStart = "<start_of_turn>";
constexpr std::string_view kEnd = "<end_of_turn>";
// Only FunctionGemma has it. Where its model calls a function, it waits for the result after it.
constexpr std::string_view kResponse = "<start_function_response>";

// What Python's str.strip() takes away, which the templates call.
constexpr std::array<std::string_view, 29> kBlanks = {
    "\t",     "\n",     "\v",     "\f",     "\r",     "\x1c",   "\x1d",   "\x1e",
    "\x1f",   " ",      "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002",
    "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200a",
    "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};

std::string_view stripped(std::string_view text) {
  for (size_t before = text.size() + 1; before != text.size();) {
    before = text.size();
    for (const auto blank : kBlanks) {
      if (text.starts_with(blank)) text.remove_prefix(blank.size());
      if (text.ends_with(blank)) text.remove_suffix(blank.size());
    }
  }
  return text;
}

// The system's text stays as it is.
ChatMessage stripped(const ChatMessage& message) {
  const std::string_view text = message.text;
  if (message.role == ChatRole::kSystem) return {message.role, message.text};
  ChatMessage result{message.role, {}};
  size_t begin = 0;
  for (const auto& [at, tokens] : message.images) {
    result.text += stripped(text.substr(begin, at - begin));
    result.images.push_back({result.text.size(), tokens});
    begin = at;
  }
  result.text += stripped(text.substr(begin));
  return result;
}

bool is_empty(const ChatMessage& message) { return message.text.empty() && message.images.empty(); }

void append(ChatMessage& turn, ChatMessage message) {
  if (is_empty(message)) return;
  if (!is_empty(turn)) turn.text += "\n\n";
  for (auto& [at, tokens] : message.images) {
    turn.images.push_back({turn.text.size() + at, std::move(tokens)});
  }
  turn.text += message.text;
}

// Messages of one role in a row as one: the system's as they are, the others stripped.
std::vector<ChatMessage> joined(std::span<const ChatMessage> messages) {
  std::vector<ChatMessage> turns;
  for (const auto& message : messages) {
    auto part = stripped(message);
    if (turns.empty() || turns.back().role != message.role) {
      turns.push_back(std::move(part));
    } else {
      append(turns.back(), std::move(part));
    }
  }
  return turns;
}

void check_turns(std::span<const ChatMessage> turns) {
  if (!turns.empty() && turns.front().role == ChatRole::kSystem) turns = turns.subspan(1);
  if (turns.empty() || turns.front().role != ChatRole::kUser) {
    throw std::invalid_argument(
        "chat: the first message, but for the system's, is not the user's; begin with one of role "
        "user");
  }
  for (const auto& turn : turns) {
    if (turn.role != ChatRole::kSystem) continue;
    throw std::invalid_argument(
        "chat: a message of the system is behind others; put it in front of them");
  }
}

std::string_view name_of(ChatRole role) {
  switch (role) {
    case ChatRole::kSystem:
      return "developer";
    case ChatRole::kUser:
      return "user";
    case ChatRole::kModel:
      return "model";
  }
  return {};
}

void add_turn_start(PromptBuilder& tokens, std::string_view name) {
  tokens.add_marker(kStart);
  tokens.add_text(name);
  tokens.add_text("\n");
}

void add_turn_end(PromptBuilder& tokens) {
  tokens.add_marker(kEnd);
  tokens.add_text("\n");
}

void add_content(PromptBuilder& tokens, const ChatMessage& turn, std::vector<ImageTokens>& images) {
  const std::string_view text = turn.text;
  size_t begin = 0;
  for (const auto& [at, image] : turn.images) {
    tokens.add_text(text.substr(begin, at - begin));
    begin = at;
    const auto first = tokens.add_ids(image.ids);
    for (const auto& part : image.images) images.push_back({first + part.first, part.embeddings});
  }
  tokens.add_text(text.substr(begin));
}

}  // namespace

ChatRole chat_role(std::string_view name) {
  if (name == "user") return ChatRole::kUser;
  if (name == "assistant" || name == "model") return ChatRole::kModel;
  if (name == "system" || name == "developer") return ChatRole::kSystem;
  throw std::invalid_argument(fmt::format(
      "chat: role '{}' is unknown; roles: system, developer, user, assistant, model", name));
}

ChatPrompt::ChatPrompt(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  if (has_piece(tokenizer, kStart) && has_piece(tokenizer, kEnd)) return;
  throw std::invalid_argument(
      "chat: the tokenizer has no <start_of_turn>, so the model knows no turns; use gemma run");
}

std::vector<int64_t> ChatPrompt::encode(std::span<const ChatMessage> messages) const {
  return encode_with_images(messages).ids;
}

PromptTokens ChatPrompt::encode_with_images(std::span<const ChatMessage> messages) const {
  const auto turns = joined(messages);
  check_turns(turns);
  PromptBuilder tokens(tokenizer_, /*bos=*/true);
  PromptTokens result;
  std::string prefix;  // Of the user's first text.
  bool is_open = false;
  for (const auto& turn : turns) {
    const bool is_system = turn.role == ChatRole::kSystem;
    if (is_system && !has_piece(tokenizer_, kResponse)) {
      prefix = turn.text + "\n\n";
      continue;
    }
    if (std::exchange(is_open, true)) add_turn_end(tokens);
    add_turn_start(tokens, name_of(turn.role));
    tokens.add_text(std::exchange(prefix, {}));
    if (is_system) {
      tokens.add_text(stripped(turn.text));
    } else {
      add_content(tokens, turn, result.images);
    }
  }
  if (turns.back().role == ChatRole::kUser) {
    add_turn_end(tokens);
    add_turn_start(tokens, name_of(ChatRole::kModel));
  }
  result.ids = tokens.take();
  return result;
}

std::vector<int64_t> ChatPrompt::first(std::string_view text,
                                       std::string_view system,
                                       std::span<const int64_t> images) const {
  std::vector<ChatMessage> messages;
  if (!system.empty()) messages.push_back({ChatRole::kSystem, std::string(system)});
  messages.push_back({ChatRole::kUser, std::string(text)});
  const std::vector<int64_t> ids(images.begin(), images.end());
  messages.back().images.push_back({.at = 0, .tokens = {.ids = ids, .images = {}}});
  return encode(messages);
}

std::vector<int64_t> ChatPrompt::next(std::string_view text,
                                      std::span<const int64_t> images) const {
  PromptBuilder tokens(tokenizer_, /*bos=*/false);
  add_turn_end(tokens);
  add_turn_start(tokens, name_of(ChatRole::kUser));
  tokens.add_ids(images);
  tokens.add_text(stripped(text));
  add_turn_end(tokens);
  add_turn_start(tokens, name_of(ChatRole::kModel));
  return tokens.take();
}

std::vector<int64_t> ChatPrompt::stop_ids() const {
  std::vector<int64_t> ids = {tokenizer_.piece_to_id(kEnd)};
  if (has_piece(tokenizer_, kResponse)) ids.push_back(tokenizer_.piece_to_id(kResponse));
  return ids;
}

}  // namespace gemma
