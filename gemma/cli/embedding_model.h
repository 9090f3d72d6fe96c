#pragma once

#include <gemma/cli/model_options.h>
#include <gemma/models/embedding_gemma.h>

namespace gemma::cli {

/// The EmbeddingGemma in the directory --ckpt, loaded and ready, with a progress bar on a terminal;
/// sets the number of threads. Throws std::invalid_argument, std::runtime_error: one line that
/// names the flag or file.
EmbeddingGemma load_embedding_gemma(const ModelOptions& options);

}  // namespace gemma::cli
