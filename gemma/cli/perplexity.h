#pragma once

#include <CLI/CLI.hpp>

namespace gemma::cli {

/// gemma perplexity: how well a model expects a text, and how far it is from another run of it.
void add_perplexity(CLI::App& app);

}  // namespace gemma::cli
