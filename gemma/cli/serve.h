#pragma once

#include <CLI/CLI.hpp>

namespace gemma::cli {

/// Adds `gemma serve`.
void add_serve(CLI::App& app);

}  // namespace gemma::cli
