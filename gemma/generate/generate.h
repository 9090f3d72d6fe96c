#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <gemma/generate/options.h>
#include <gemma/models/engine_model.h>
#include <gemma/vision/gemma3_preprocessor.h>

namespace gemma {

/// generate() of a model (causal_lm.h, multimodal_lm.h, paligemma.h), or generate_on_engine of one
/// without, for callers that have any of them. The result is the continuations, of
/// Gemma3ForMultimodalLM the prompts with them. Throws as they do, and std::invalid_argument for an
/// image that is given to a text model.
std::vector<std::string> generate(const EngineModel& model,
                                  std::span<const Prompt> prompts,
                                  torch::Device device,
                                  int64_t output_len,
                                  std::optional<double> temperature,
                                  double top_p,
                                  int64_t top_k,
                                  const GenerateOptions& options = {});

}  // namespace gemma
