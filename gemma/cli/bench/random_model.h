#pragma once

#include <gemma/cli/model_options.h>

namespace gemma::cli {

/// A model of `options.variant`, which may be a preset of RecurrentGemma, with random weights,
/// bfloat16 unless options.dtype says otherwise, or int8; of a multimodal variant the text part. It
/// has no tokenizer. Speed does not depend on what the weights are.
EngineModel random_model(const ModelOptions& options);

}  // namespace gemma::cli
