#pragma once

#include <CLI/CLI.hpp>

namespace gemma::cli {

/// gemma run: scripts/run.py of gemma_pytorch, its flags and defaults, and a few more.
void add_run(CLI::App& app);

}  // namespace gemma::cli
