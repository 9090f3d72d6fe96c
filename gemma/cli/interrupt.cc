#include <array>
#include <iterator>

#include <fmt/format.h>

#include <gemma/cli/interrupt.h>

namespace gemma::cli {
namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP};

// A handler can reach nothing but a variable with static lifetime.
volatile std::sig_atomic_t caught = 0;

void remember(int signal_number) { caught = signal_number; }

}  // namespace

Interrupted::Interrupted(int signal_number)
    : std::runtime_error(fmt::format("interrupted by signal {}", signal_number)),
      signal(signal_number) {}

InterruptGuard::InterruptGuard() {
  static_assert(std::size(kSignals) == std::extent_v<decltype(before_)>);
  for (size_t i = 0; i < kSignals.size(); ++i) {
    struct sigaction action{};
    action.sa_handler = remember;
    action.sa_flags = SA_RESTART;
    ::sigaction(kSignals[i], nullptr, &before_[i]);
    if (before_[i].sa_handler != SIG_IGN) ::sigaction(kSignals[i], &action, nullptr);
  }
}

InterruptGuard::~InterruptGuard() {
  for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
}

void check_interrupt() {
  if (caught != 0) throw Interrupted(caught);
}

bool take_interrupt() {
  if (caught != SIGINT) {
    check_interrupt();
    return false;
  }
  caught = 0;
  return true;
}

}  // namespace gemma::cli
