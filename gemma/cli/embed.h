#pragma once

#include <CLI/CLI.hpp>

namespace gemma::cli {

/// `gemma embed`: texts to vectors.
void add_embed(CLI::App& app);

}  // namespace gemma::cli
