#pragma once

#include <cstdint>
#include <vector>

#include <gemma/server/completion_request.h>
#include <gemma/server/served_model.h>

namespace gemma::server {

struct PromptTokens {
  std::vector<std::vector<int64_t>> prompts;
  std::vector<int64_t> stop_ids;  ///< That end an answer, besides eos.
};

/// The prompts of a request as tokens, each with bos. Throws ApiError for a chat that is none, and
/// for prompts that leave no position to answer.
PromptTokens tokens_of(const CompletionRequest& request, const ServedModel& model);

}  // namespace gemma::server
