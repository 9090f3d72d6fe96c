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

// Messages of one role in a row as one: the system's as they are, the others stripped.
std::vector<ChatMessage> joined(std::span<const ChatMessage> messages) {
  std::vector<ChatMessage> turns;
  for (const auto& [role, text] : messages) {
    const auto part = role == ChatRole::kSystem ? std::string_view(text) : stripped(text);
    if (turns.empty() || turns.back().role != role) {
      turns.emplace_back(role, std::string(part));
    } else if (!part.empty()) {
      if (!turns.back().text.empty()) turns.back().text += "\n\n";
      turns.back().text += part;
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
  return encode(messages, /*images=*/{});
}

// The images are the last turn's.
std::vector<int64_t> ChatPrompt::encode(std::span<const ChatMessage> messages,
                                        std::span<const int64_t> images) const {
  const auto turns = joined(messages);
  check_turns(turns);
  PromptBuilder tokens(tokenizer_, /*bos=*/true);
  std::string prefix;  // Of the user's first text.
  bool is_open = false;
  for (const auto& [role, text] : turns) {
    if (role == ChatRole::kSystem && !has_piece(tokenizer_, kResponse)) {
      prefix = text + "\n\n";
      continue;
    }
    if (std::exchange(is_open, true)) add_turn_end(tokens);
    add_turn_start(tokens, name_of(role));
    tokens.add_text(std::exchange(prefix, {}));
    if (&text == &turns.back().text && !images.empty()) tokens.add_ids(images);
    tokens.add_text(stripped(text));
  }
  if (turns.back().role == ChatRole::kUser) {
    add_turn_end(tokens);
    add_turn_start(tokens, name_of(ChatRole::kModel));
  }
  return tokens.take();
}

std::vector<int64_t> ChatPrompt::first(std::string_view text,
                                       std::string_view system,
                                       std::span<const int64_t> images) const {
  std::vector<ChatMessage> messages;
  if (!system.empty()) messages.emplace_back(ChatRole::kSystem, std::string(system));
  messages.emplace_back(ChatRole::kUser, std::string(text));
  return encode(messages, images);
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
