#pragma once

#include <csignal>
#include <stdexcept>

namespace gemma::cli {

/// What check_interrupt throws: the program ends as the signal would have ended it.
struct Interrupted : std::runtime_error {
  explicit Interrupted(int signal_number);
  int signal;
};

/// While it lives, SIGINT, SIGTERM and SIGHUP do not end the process at once but where
/// check_interrupt is called, so that files that are half written are removed on the way out. A
/// signal that the caller ignores stays ignored.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

 private:
  struct sigaction before_[3];
};

/// Throws Interrupted when a signal came since an InterruptGuard was made.
void check_interrupt();

/// Whether SIGINT came, which is forgotten then. Throws Interrupted for the other signals.
bool take_interrupt();

}  // namespace gemma::cli
