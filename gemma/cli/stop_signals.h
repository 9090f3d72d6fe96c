#pragma once

#include <csignal>
#include <optional>

namespace gemma::cli {

/// Holds back SIGINT, SIGTERM and SIGHUP of this thread and of those that it starts, so that one of
/// them can wait for these. A signal that the caller ignores stays ignored.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// The next one, if it comes within so many seconds.
  std::optional<int> wait(double seconds) const;

 private:
  sigset_t signals_, before_;
};

/// Ends the process at once, as the signal would have.
[[noreturn]] void die_by(int signal_number);

}  // namespace gemma::cli
