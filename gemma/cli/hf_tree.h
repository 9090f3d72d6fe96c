#pragma once

#include <string>

#include <gemma/config/config.h>

namespace gemma::cli {

/// What print(model) of Hugging Face transformers 4.38 shows of the model, the first release with
/// Gemma, whose trees Google's articles print. Throws std::invalid_argument for another
/// architecture than Gemma 1.
std::string hf_tree(const GemmaConfig& config);

}  // namespace gemma::cli
