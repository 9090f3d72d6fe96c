#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include <gemma/cli/guess_options.h>
#include <gemma/cli/model_options.h>

namespace gemma::cli {

/// A gap in a text: what is before it and what is after it, each given as it is or as a file.
struct GapOptions {
  std::optional<std::string> prefix, suffix;
  std::string prefix_file, suffix_file;
  std::vector<std::string> context_files;

  bool is_given() const;
};

/// The flags of gemma run.
struct RunOptions {
  ModelOptions model;
  int64_t output_len = 10;
  uint64_t seed = 12345;
  std::string prompt = "What are large language models?";
  std::string prompt_file;
  std::vector<std::string> images;
  std::string boxes;  // A file; empty: none.
  GapOptions gap;
  std::string prompts, out;  // Files of a batch; empty: none.
  int64_t max_batch = 32;
  std::optional<double> temperature;  // None: 1, or 0 of a gap and of a PaliGemma.
  double top_p = 0.95;
  int64_t top_k = 64;
  bool greedy = false;
  std::vector<std::string> steer;  // As add_steering takes them.
  GuessOptions guess;
};

void add_run_options(CLI::App& command, RunOptions& options);

/// None: always the likeliest token.
std::optional<double> temperature_of(const RunOptions& options);

/// Tokens that end a text besides eos: with exact numerics none, as in the reference; else those
/// that the checkpoint names, and the end of a turn.
std::vector<int64_t> stop_ids_of(const EngineModel& model, const std::string& ckpt);

}  // namespace gemma::cli
