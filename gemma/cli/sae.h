#pragma once

#include <CLI/CLI.hpp>

namespace gemma::cli {

/// gemma sae: the features that an autoencoder sees in each token of a text.
void add_sae(CLI::App& app);

}  // namespace gemma::cli
