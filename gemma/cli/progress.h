#pragma once

#include <cstdint>
#include <string>

#include <gemma/weights/weights.h>

namespace gemma::cli {

/// One line on standard error, when that is a terminal: std::ref of it is a ProgressCallback and a
/// LayerCallback. The line is erased when all is done, or when an exception ends the bar's life
/// before.
class ProgressBar {
 public:
  /// `action` stands before the bar: "Loading".
  explicit ProgressBar(std::string action);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void operator()(const LoadProgress& state);
  void operator()(int64_t done, int64_t total);

 private:
  /// `part` from 0 to 1.
  void draw(double part);
  void erase();

  std::string action_;
  bool on_terminal_;
  bool drawn_ = false;
};

}  // namespace gemma::cli
