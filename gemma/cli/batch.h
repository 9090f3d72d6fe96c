#pragma once

#include <gemma/cli/run_options.h>

namespace gemma::cli {

/// gemma run --prompts: continues the texts of a file together, and appends each result to --out.
void run_batch(const RunOptions& options);

}  // namespace gemma::cli
