#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include <gemma/checkpoint/utf8.h>
#include <gemma/server/completion_json.h>

namespace gemma::server {
namespace {

// OpenAI's spelling of bytes that are no whole character.
std::string shown_token(std::string_view bytes) {
  if (is_utf8(bytes)) return std::string(bytes);
  std::string text = "bytes:";
  for (const char c : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return text;
}

// Characters of a token in a text, where bos is not shown.
int64_t characters_of(int64_t token, std::string_view text, const Tokenizer& tokenizer) {
  if (token == tokenizer.bos_id()) return 0;
  return std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; });
}

Json chat_logprob(int64_t token, float logprob, const Tokenizer& tokenizer) {
  const auto bytes = bytes_of_token(tokenizer, token);
  Json entry;
  entry["token"] = shown_token(bytes);
  entry["logprob"] = logprob;
  entry["bytes"] = Json::array();
  for (const char c : bytes) entry["bytes"].push_back(static_cast<unsigned char>(c));
  return entry;
}

Json chat_logprobs(std::span<const GeneratedToken> tokens, const Tokenizer& tokenizer) {
  return Json{{"content", chat_tokens(tokens, tokenizer)}, {"refusal", nullptr}};
}

Json text_logprobs(std::span<const GeneratedToken> tokens,
                   int64_t offset,
                   const Tokenizer& tokenizer) {
  Json all{{"tokens", Json::array()},
           {"token_logprobs", Json::array()},
           {"top_logprobs", Json::array()},
           {"text_offset", Json::array()}};
  for (const auto& token : tokens) {
    auto text = shown_token(bytes_of_token(tokenizer, token.id));
    all["text_offset"].push_back(offset);
    offset += characters_of(token.id, text, tokenizer);
    all["tokens"].push_back(std::move(text));
    if (std::isnan(token.logprob)) {  // Nothing is before it.
      all["token_logprobs"].push_back(nullptr);
      all["top_logprobs"].push_back(nullptr);
      continue;
    }
    all["token_logprobs"].push_back(token.logprob);
    Json top = Json::object();
    for (const auto& [other, logprob] : token.top) {
      top[shown_token(bytes_of_token(tokenizer, other))] = logprob;
    }
    all["top_logprobs"].push_back(std::move(top));
  }
  return all;
}

Json logprobs_of(const AnswerHead& head, const ChoicePart& part, const Tokenizer& tokenizer) {
  if (!part.tokens) return nullptr;
  return head.is_chat ? chat_logprobs(*part.tokens, tokenizer)
                      : text_logprobs(*part.tokens, part.offset, tokenizer);
}

Json object(const AnswerHead& head, std::string_view chat_name, Json choices) {
  Json all;
  all["id"] = head.id;
  all["object"] = head.is_chat ? chat_name : "text_completion";
  all["created"] = head.created;
  all["model"] = head.model;
  all["system_fingerprint"] = "gemma-libtorch-" GEMMA_VERSION;
  all["choices"] = std::move(choices);
  return all;
}

Json usage_of(const AnswerCost& cost) {
  Json usage;
  usage["prompt_tokens"] = cost.prompt_tokens;
  usage["completion_tokens"] = cost.completion_tokens;
  usage["total_tokens"] = cost.prompt_tokens + cost.completion_tokens;
  usage["prompt_tokens_details"] = Json{{"cached_tokens", cost.cached_tokens}};
  return usage;
}

Json choice(const AnswerHead& head, const ChoicePart& part, const Tokenizer& tokenizer) {
  Json all;
  all["index"] = part.index;
  if (!head.is_chat) all["text"] = part.text;
  all["logprobs"] = logprobs_of(head, part, tokenizer);
  all["finish_reason"] =
      part.finish_reason ? Json(std::string(to_string(*part.finish_reason))) : Json(nullptr);
  return all;
}

}  // namespace

std::string bytes_of_token(const Tokenizer& tokenizer, int64_t token) {
  constexpr std::string_view kBlank = "\u2581";
  auto piece = tokenizer.id_to_piece(token);
  if (const auto byte = byte_of_piece(piece)) return std::string(1, static_cast<char>(*byte));
  for (size_t i = 0; (i = piece.find(kBlank, i)) != piece.npos;)
    piece.replace(i, kBlank.size(), " ");
  return piece;
}

Json chat_tokens(std::span<const GeneratedToken> tokens, const Tokenizer& tokenizer) {
  Json list = Json::array();
  for (const auto& token : tokens) {
    auto& entry = list.emplace_back(chat_logprob(token.id, token.logprob, tokenizer));
    entry["top_logprobs"] = Json::array();
    for (const auto& [other, logprob] : token.top) {
      entry["top_logprobs"].push_back(chat_logprob(other, logprob, tokenizer));
    }
  }
  return list;
}

Json whole_answer(const AnswerHead& head,
                  std::span<const ChoicePart> choices,
                  const AnswerCost& cost,
                  const Tokenizer& tokenizer) {
  Json list = Json::array();
  for (const auto& part : choices) {
    auto& all = list.emplace_back(choice(head, part, tokenizer));
    if (!head.is_chat) continue;
    all["message"] = Json{{"role", "assistant"}, {"content", part.text}, {"refusal", nullptr}};
  }
  auto all = object(head, "chat.completion", std::move(list));
  all["usage"] = usage_of(cost);
  return all;
}

Json first_chunk(const AnswerHead& head, int64_t index) {
  Json delta{{"role", "assistant"}, {"content", ""}};
  Json only{{"index", index},
            {"delta", std::move(delta)},
            {"logprobs", nullptr},
            {"finish_reason", nullptr}};
  return object(head, "chat.completion.chunk", Json::array({std::move(only)}));
}

Json chunk(const AnswerHead& head, const ChoicePart& part, const Tokenizer& tokenizer) {
  auto only = choice(head, part, tokenizer);
  if (head.is_chat) {
    only["delta"] = Json::object();
    if (!part.finish_reason || !part.text.empty()) only["delta"]["content"] = part.text;
  }
  return object(head, "chat.completion.chunk", Json::array({std::move(only)}));
}

Json usage_chunk(const AnswerHead& head, const AnswerCost& cost) {
  auto all = object(head, "chat.completion.chunk", Json::array());
  all["usage"] = usage_of(cost);
  return all;
}

int64_t count_characters(std::span<const GeneratedToken> tokens, const Tokenizer& tokenizer) {
  int64_t count = 0;
  for (const auto& token : tokens) {
    count += characters_of(token.id, shown_token(bytes_of_token(tokenizer, token.id)), tokenizer);
  }
  return count;
}

}  // namespace gemma::server
