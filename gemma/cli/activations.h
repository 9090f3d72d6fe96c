#pragma once

#include <CLI/CLI.hpp>

namespace gemma::cli {

/// gemma activations: the values of a model's points, to files.
void add_activations(CLI::App& app);

}  // namespace gemma::cli
