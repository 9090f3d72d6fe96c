#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include <gemma/cli/model_options.h>

namespace gemma::cli {

/// The flags of programs that may guess what a text is going to say.
struct GuessOptions {
  int64_t prompt_lookup = 0;  // Tokens at a time; 0: none.
  std::string draft;          // A checkpoint; empty: none.
  int64_t draft_tokens = 4;

  bool are_given() const { return prompt_lookup > 0 || !draft.empty(); }
};

void add_guess_options(CLI::App& command, GuessOptions& options);

/// Throws std::invalid_argument where guesses are asked for that the numerics or the model cannot
/// take.
void check_guesses(const GuessOptions& options,
                   const ModelOptions& model_options,
                   const OpenCheckpoint& checkpoint);

/// The draft model, on the device and with the numerics of the model; none if none is asked for.
/// Throws as load_model.
std::optional<EngineModel> load_draft(const GuessOptions& options,
                                      const ModelOptions& model_options);

}  // namespace gemma::cli
