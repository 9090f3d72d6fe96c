#pragma once

#include <CLI/CLI.hpp>

namespace gemma::cli {

/// gemma info: what a variant or a checkpoint is, without reading weights.
void add_info(CLI::App& app);

}  // namespace gemma::cli
