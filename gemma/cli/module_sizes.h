#pragma once

#include <cstdint>
#include <string>

#include <torch/nn/module.h>

// Counts and bytes, as `gemma info` prints them.
namespace gemma::cli {

struct Size {
  int64_t count = 0, bytes = 0;
};

/// Of all parameters below.
Size size_of(const torch::nn::Module& module);

/// The head of a table of sizes, and a line of it.
void print_size_header();
void print_size(const std::string& name, const Size& size);

}  // namespace gemma::cli
