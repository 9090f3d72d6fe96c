#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <gemma/engine/engine.h>
#include <gemma/server/http.h>
#include <gemma/server/json.h>
#include <gemma/text/tokenizer.h>

namespace gemma::server {

/// The bytes of a token, as a text's: "▁the" is " the", and "<0x0A>" a newline.
std::string bytes_of_token(const Tokenizer& tokenizer, int64_t token);

/// What is the same in all objects of an answer.
struct AnswerHead {
  bool is_chat;
  std::string id;     ///< "chatcmpl-…" or "cmpl-…".
  std::string model;  ///< Its name.
  int64_t created;    ///< Seconds since 1970.
};

/// An answer's text, or the next part of it.
struct ChoicePart {
  int64_t index;
  std::string text;
  /// With their probabilities; none where these are not asked for.
  std::optional<std::span<const GeneratedToken>> tokens = std::nullopt;
  /// Characters of the answer before `tokens`.
  int64_t offset = 0;
  std::optional<FinishReason> finish_reason = std::nullopt;
};

/// The answer as a whole. `cost` is told as its usage.
Json whole_answer(const AnswerHead& head,
                  std::span<const ChoicePart> choices,
                  const AnswerCost& cost,
                  const Tokenizer& tokenizer);

/// What a stream of a chat's answer begins with, for each of its choices.
Json first_chunk(const AnswerHead& head, int64_t index);
/// The next part.
Json chunk(const AnswerHead& head, const ChoicePart& part, const Tokenizer& tokenizer);
/// The usage at its end.
Json usage_chunk(const AnswerHead& head, const AnswerCost& cost);

/// Tokens of a chat's answer with their probabilities.
Json chat_tokens(std::span<const GeneratedToken> tokens, const Tokenizer& tokenizer);

/// Characters of the tokens, as `offset` counts them.
int64_t count_characters(std::span<const GeneratedToken> tokens, const Tokenizer& tokenizer);

}  // namespace gemma::server
