#include <fstream>
#include <string>

#include <sys/resource.h>

#include <gemma/cli/peak_memory.h>

namespace gemma::cli {

void reset_peak_memory() { std::ofstream("/proc/self/clear_refs") << '5'; }

int64_t peak_memory() {
  constexpr int64_t kKilo = 1024;
  // getrusage's figure is not reset.
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    int64_t kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return kilobytes * kKilo;
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * kKilo;
}

}  // namespace gemma::cli
