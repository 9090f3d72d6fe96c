#pragma once

#include <CLI/CLI.hpp>

namespace gemma::cli {

/// gemma chat: a conversation with a model.
void add_chat(CLI::App& app);

}  // namespace gemma::cli
