#pragma once

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include <gemma/models/embedding_gemma.h>
#include <gemma/server/completion.h>
#include <gemma/server/embedder.h>
#include <gemma/server/http.h>
#include <gemma/server/json.h>

namespace gemma::server {

/// What is asked for by /v1/embeddings.
struct EmbeddingsRequest {
  /// Texts, or tokens as they are.
  std::vector<std::variant<std::string, std::vector<int64_t>>> inputs;
  EmbedOptions options;
  bool as_base64 = false;  ///< The float32 numbers' bytes, the lowest first.
};

/// The body of a request. Throws ApiError for fields that are wrong; those that OpenAI does not
/// have, but for prompt_name and truncate, are ignored.
EmbeddingsRequest read_embeddings_request(const JsonValue& body,
                                          const EmbeddingGemmaConfig& config);

/// Answers a request. Both references have to outlive it. Throws ApiError when it cannot be
/// answered; then `reply` has nothing yet.
void start_embeddings(Embedder& embedder,
                      CompletionContext& context,
                      const EmbeddingsRequest& request,
                      std::shared_ptr<HttpReply> reply);

}  // namespace gemma::server
