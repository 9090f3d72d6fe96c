#pragma once

#include <CLI/CLI.hpp>

namespace gemma::cli {

/// gemma bench: how fast a model runs, beside what the machine can do at most.
void add_bench(CLI::App& app);

}  // namespace gemma::cli
