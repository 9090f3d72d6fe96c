#pragma once

#include <CLI/CLI.hpp>

namespace gemma::cli {

/// gemma convert: writes a checkpoint anew, as one file, with int8 weights or in another dtype.
void add_convert(CLI::App& app);

}  // namespace gemma::cli
