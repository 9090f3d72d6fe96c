#pragma once

#include <CLI/CLI.hpp>

namespace gemma::cli {

/// gemma lens: what a model would say after each of its layers.
void add_lens(CLI::App& app);

}  // namespace gemma::cli
