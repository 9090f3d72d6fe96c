#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

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
  GapOptions gap;
  std::optional<double> temperature;  // None: 1, or 0 of a gap.
  double top_p = 0.95;
  int64_t top_k = 64;
  bool greedy = false;
};

/// They are complete when the command's callback runs.
void add_run_options(CLI::App& command, RunOptions& options);

}  // namespace gemma::cli
