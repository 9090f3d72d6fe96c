#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <gemma/engine/engine.h>
#include <gemma/generate/chat_prompt.h>
#include <gemma/server/json.h>
#include <gemma/server/message_content.h>

namespace gemma::server {

/// What is asked for by /v1/chat/completions or /v1/completions.
struct CompletionRequest {
  using Prompt = std::variant<std::string, std::vector<int64_t>>;

  bool is_chat = false;
  std::vector<ChatMessage> messages = {};            ///< Of a chat, without its images,
  std::vector<MessageImage> images = {};             ///< which are here.
  std::vector<Prompt> prompts = {};                  ///< Else: texts or tokens.
  std::optional<std::string> suffix = std::nullopt;  ///< What follows after the only prompt.
  std::vector<std::string> files = {};  ///< With `suffix`: others that are to be known.
  std::string prompt_field = "prompt";  ///< Where all this was, for errors.
  bool echo = false;                    ///< The prompts are part of the answer.
  /// All but max_tokens.
  GenerateRules rules = {};
  /// None: as many as fit.
  std::optional<int64_t> max_tokens = std::nullopt;
  int64_t n = 1;  ///< Answers for each prompt; the seed of each is one more.
  bool stream = false;
  bool include_usage = false;  ///< Of a stream.
};

/// The body of a request. Fields that OpenAI does not have, nor vLLM, are ignored. Throws ApiError
/// for those that are wrong, and for what is not served.
CompletionRequest read_chat_request(const JsonValue& body, int64_t vocab_size);
CompletionRequest read_text_request(const JsonValue& body, int64_t vocab_size);

}  // namespace gemma::server
