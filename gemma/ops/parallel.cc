#include <algorithm>
#include <atomic>
#include <pthread.h>
#include <stdexcept>

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
  int64_t threads;
  c10::function_ref<void(int64_t, int64_t)> body;
  std::atomic<int64_t> next{0};  // Of the turns.
};

struct Tasks {
  int64_t begin, end;
};

// Each round gives half of the tasks that are left to the threads, in equal shares: few turns, as
// to take one costs what a short task does, more so the more threads there are; and single tasks at
// the end, so that the threads end together. No tasks once all are taken.
Tasks tasks_of_turn(int64_t turn, int64_t count, int64_t threads) {
  int64_t begin = 0;
  auto step = std::max<int64_t>(1, count / (2 * threads));
  while (turn >= threads && step > 1) {
    turn -= threads;
    begin += threads * step;
    step = std::max<int64_t>(1, (count - begin) / (2 * threads));
  }
  begin = std::min(begin + turn * step, count);
  return {begin, std::min(begin + step, count)};
}

void work(void* data) {
  auto& region = *static_cast<Region*>(data);
  const auto worker = static_cast<int64_t>(omp_get_thread_num());
  for (;;) {
    const auto turn = region.next.fetch_add(1, std::memory_order_relaxed);
    const auto [begin, end] = tasks_of_turn(turn, region.count, region.threads);
    if (begin == end) return;
    for (auto task = begin; task < end; ++task) region.body(task, worker);
  }
}

std::atomic<int64_t>& region_count() {
  static std::atomic<int64_t> count{0};
  return count;
}

// Whether a process has used several threads, and whether this one is a child of such a process.
class ForkWatch {
 public:
  static ForkWatch& instance() {
    static ForkWatch watch;
    return watch;
  }
  void threads_started() { started_.store(true, std::memory_order_relaxed); }
  bool threads_lost() const { return lost_.load(std::memory_order_relaxed); }

 private:
  ForkWatch() {
    pthread_atfork(nullptr, nullptr, [] {
      auto& watch = instance();
      if (watch.started_) watch.lost_ = true;
    });
  }

  std::atomic<bool> started_{false};
  std::atomic<bool> lost_{false};
};

}  // namespace

void check_threads_alive() {
  auto& watch = ForkWatch::instance();
  if (at::get_num_threads() == 1) return;
  if (watch.threads_lost()) {
    throw std::runtime_error(
        "this process was forked after its parent had computed with several threads, which do not "
        "exist here; start processes with multiprocessing's \"spawn\" method, or call "
        "torch.set_num_threads(1) first");
  }
  watch.threads_started();
}

int64_t regions_begun() { return region_count().load(std::memory_order_relaxed); }

int64_t num_workers() { return at::in_parallel_region() ? 1 : at::get_num_threads(); }

void parallel_for(int64_t count, c10::function_ref<void(int64_t, int64_t)> body) {
  const auto threads = num_workers();
  if (threads == 1 || count <= 1) {
    for (int64_t task = 0; task < count; ++task) body(task, 0);
    return;
  }
  check_threads_alive();
  region_count().fetch_add(1, std::memory_order_relaxed);
  Region region{count, threads, body};
  // All threads, however few the tasks: GNU's runtime ends those that a region leaves out, and the
  // next region that has them starts them anew, which takes longer than most regions do.
  GOMP_parallel(work, &region, static_cast<unsigned>(threads), /*flags=*/0);
}

}  // namespace gemma
