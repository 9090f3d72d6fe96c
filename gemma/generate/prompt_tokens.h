#pragma once

#include <cstdint>
#include <vector>

#include <gemma/engine/model_runner.h>

namespace gemma {

/// A prompt as an engine takes it.
struct PromptTokens {
  std::vector<int64_t> ids;
  std::vector<ImageTokens> images;
};

}  // namespace gemma
