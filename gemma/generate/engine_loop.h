#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <gemma/generate/options.h>
#include <gemma/models/engine_model.h>

namespace gemma {

/// Continues texts on an Engine, for models of which the reference has no generate() with these
/// arguments -> the continuations. The random numbers of each come from a seed of LibTorch's
/// default generator. A step is one of the text that has come farthest; on_layer and on_encode are
/// not called. Throws as Engine, and as check_sampling.
std::vector<std::string> generate_on_engine(const EngineModel& model,
                                            std::span<const std::string> prompts,
                                            int64_t output_len,
                                            std::optional<double> temperature,
                                            double top_p,
                                            int64_t top_k,
                                            const GenerateOptions& options);

}  // namespace gemma
