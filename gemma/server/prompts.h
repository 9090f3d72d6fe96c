#pragma once

#include <cstdint>
#include <vector>

#include <gemma/server/completion_request.h>
#include <gemma/server/served_model.h>

namespace gemma::server {

struct PromptTokens {
  std::vector<std::vector<int64_t>> prompts;
  std::vector<ImageTokens> images;  ///< Of a chat's only prompt.
  std::vector<int64_t> stop_ids;    ///< That end an answer, besides eos.
};

/// The prompts of a request as tokens, each with bos. Throws ApiError for a chat that is none, for
/// images that are damaged or that the model does not see, and for prompts that leave no position
/// to answer. With images it takes a while.
PromptTokens tokens_of(const CompletionRequest& request, ServedModel& model);

}  // namespace gemma::server
