#include <algorithm>
#include <atomic>

#include <ATen/Parallel.h>

#include <gemma/ops/parallel.h>

// OpenMP as compilers call it: GNU's runtime, which LibTorch brings along, and LLVM's have both
// this entry. Called by name, LibTorch's threads are the same for every compiler; -fopenmp would
// make Clang add a second runtime, with threads of its own that fight for the same cores.
extern "C" {
// NOLINTNEXTLINE(bugprone-reserved-identifier)
void GOMP_parallel(void (*function)(void*), void* data, unsigned num_threads, unsigned flags);
int omp_get_thread_num(void);
}

namespace gemma {
namespace {

struct Region {
  int64_t count;
  int64_t step;  // Tasks that a thread takes at once.
  c10::function_ref<void(int64_t, int64_t)> body;
  std::atomic<int64_t> next{0};
};

void work(void* data) {
  auto& region = *static_cast<Region*>(data);
  const auto worker = static_cast<int64_t>(omp_get_thread_num());
  for (;;) {
    const auto first = region.next.fetch_add(region.step, std::memory_order_relaxed);
    if (first >= region.count) return;
    const auto end = std::min(first + region.step, region.count);
    for (auto task = first; task < end; ++task) region.body(task, worker);
  }
}

}  // namespace

int64_t num_workers() { return at::in_parallel_region() ? 1 : at::get_num_threads(); }

void parallel_for(int64_t count, c10::function_ref<void(int64_t, int64_t)> body) {
  const auto threads = num_workers();
  if (threads == 1 || count <= 1) {
    for (int64_t task = 0; task < count; ++task) body(task, 0);
    return;
  }
  // Short tasks, such as rows: to ask for each would take as long as some of them do.
  constexpr int64_t kTurns = 64;
  Region region{count, std::max<int64_t>(1, count / (threads * kTurns)), body};
  // All threads, however few the tasks: GNU's runtime ends those that a region leaves out, and the
  // next region that has them starts them anew, which takes longer than most regions do.
  GOMP_parallel(work, &region, static_cast<unsigned>(threads), /*flags=*/0);
}

}  // namespace gemma
