#pragma once

#include <string>

#include <gemma/models/weights.h>

namespace gemma::cli {

/// One line on standard error, when that is a terminal: std::ref of it is a ProgressCallback. The
/// line is erased when all is done, or when an exception ends the bar's life before.
class ProgressBar {
 public:
  /// `action` stands before the bar: "Loading".
  explicit ProgressBar(std::string action);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void operator()(const LoadProgress& state);

 private:
  void erase();

  std::string action_;
  bool on_terminal_;
  bool drawn_ = false;
};

}  // namespace gemma::cli
