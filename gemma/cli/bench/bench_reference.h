#pragma once

#include <memory>
#include <string>

#include <gemma/cli/bench/bench_case.h>
#include <gemma/config/config.h>

namespace gemma::cli {

/// gemma_pytorch in a Python process, to be measured in turns with a model here.
class BenchReference {
 public:
  /// Starts `python` on the checkout of gemma_pytorch. The models, made when they are first asked
  /// for, are on `device` and have the shapes of `config` and the weights of the checkpoint, or any
  /// weights when `ckpt` is empty. Throws std::runtime_error when there is no such checkout, or
  /// Python cannot be started.
  BenchReference(const std::string& checkout,
                 const std::string& python,
                 const GemmaConfig& config,
                 const std::string& ckpt,
                 torch::Device device);
  ~BenchReference();

  /// Runs the test once in `dtype` -> seconds. Throws std::runtime_error with Python's own message,
  /// or when the process has ended.
  double seconds(const BenchCase& test, const std::string& dtype, int threads);

 private:
  class Child;
  std::unique_ptr<Child> child_;
};

}  // namespace gemma::cli
