#pragma once

#include <CLI/CLI.hpp>

namespace gemma::cli {

/// gemma next: the tokens that a model expects after a text, and how likely each is.
void add_next(CLI::App& app);

}  // namespace gemma::cli
