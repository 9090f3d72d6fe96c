#include <algorithm>
#include <cstdio>
#include <unistd.h>
#include <utility>

#include <gemma/cli/output.h>
#include <gemma/cli/progress.h>

namespace gemma::cli {

ProgressBar::ProgressBar(std::string action)
    : action_(std::move(action)), on_terminal_(::isatty(STDERR_FILENO) != 0) {}

ProgressBar::~ProgressBar() { erase(); }

void ProgressBar::operator()(const LoadProgress& state) {
  // Bytes, as the embedding is a large part of the whole; a file may hold none.
  draw(static_cast<double>(state.bytes_done) /
       static_cast<double>(std::max<int64_t>(1, state.bytes_total)));
  if (state.tensors_done == state.tensors_total) erase();
}

void ProgressBar::operator()(int64_t done, int64_t total) {
  draw(static_cast<double>(done) / static_cast<double>(total));
  if (done == total) erase();
}

void ProgressBar::draw(double part) {
  if (!on_terminal_) return;
  constexpr int kWidth = 30;
  const auto filled = static_cast<int>(part * kWidth);
  note("\r{} [{:#<{}}{:.<{}}] {:3.0f} %", action_, "", filled, "", kWidth - filled, part * 100);
  drawn_ = true;
}

void ProgressBar::erase() {
  if (drawn_) note("\r\033[K");
  drawn_ = false;
}

}  // namespace gemma::cli
