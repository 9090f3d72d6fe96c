#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <new>
#include <unistd.h>

#include <ATen/ATen.h>
#include <sys/mman.h>

#include <gemma/cli/probes.h>
#include <gemma/ops/cpu/kernels.h>
#include <gemma/ops/parallel.h>

namespace gemma::cli {
namespace {

using Clock = std::chrono::steady_clock;

// Repeats `work` for a tenth of a second -> how often a second. The first time is not counted: it
// wakes the threads.
double times_per_second(const std::function<void()>& work) {
  constexpr std::chrono::milliseconds kDuration{100};
  work();
  const auto start = Clock::now();
  int64_t count = 0;
  auto now = start;
  for (; now - start < kDuration; now = Clock::now(), ++count) work();
  return static_cast<double>(count) / std::chrono::duration<double>(now - start).count();
}

// Memory in huge pages where the machine has them: looking up small ones slows reading down. Given
// back afterwards, so that it does not count as the model's.
class ProbeMemory {
 public:
  explicit ProbeMemory(int64_t size) : size_(size) {
    auto* const got = ::mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<char*>(got);
    ::madvise(data_, static_cast<size_t>(size), MADV_HUGEPAGE);
    // Pages that were never written are all the same one, which would stay in the cache.
    parallel_for(size / kPart, [this](int64_t part, int64_t /*worker*/) {
      std::fill_n(data_ + part * kPart, kPart, 1);
    });
  }
  ~ProbeMemory() { ::munmap(data_, static_cast<size_t>(size_)); }
  ProbeMemory(const ProbeMemory&) = delete;
  ProbeMemory& operator=(const ProbeMemory&) = delete;

  // Not a power of two: the streams in a part would meet in the same sets of the caches.
  static constexpr int64_t kPart = (int64_t{4} << 20) + 2304;
  int64_t parts() const { return size_ / kPart; }
  const char* part(int64_t i) const { return data_ + i * kPart; }

 private:
  int64_t size_;
  char* data_;
};

}  // namespace

double stream_rate() {
  constexpr int64_t kLeast = int64_t{256} << 20;
  constexpr int64_t kTimesCache = 8;
  const int64_t cache = std::max(0L, ::sysconf(_SC_LEVEL3_CACHE_SIZE));
  const ProbeMemory memory(
      cpu::round_up(std::max(kLeast, kTimesCache * cache), ProbeMemory::kPart));
  std::atomic<uint32_t> sum = 0;
  const auto passes = times_per_second([&] {
    parallel_for(memory.parts(), [&](int64_t i, int64_t /*worker*/) {
      sum += cpu::kernels().read_memory(memory.part(i), ProbeMemory::kPart);
    });
  });
  return passes * static_cast<double>(memory.parts() * ProbeMemory::kPart);
}

double fma_rate() {
  constexpr int64_t kRounds = 20'000;
  // Long enough that it does not matter when one thread has to wait for its core.
  constexpr int64_t kTasksPerWorker = 512;
  const auto tasks = num_workers() * kTasksPerWorker;
  std::atomic<float> sum = 0.0F;
  const auto passes = times_per_second([&] {
    parallel_for(tasks, [&](int64_t task, int64_t /*worker*/) {
      sum = cpu::kernels().multiply_registers(kRounds, 0.5F, static_cast<float>(task));
    });
  });
  return passes * static_cast<double>(tasks * kRounds * cpu::kernels().probe_flops);
}

double sgemm_rate(int64_t rows, int64_t hidden_size, int64_t intermediate_size) {
  const auto hidden = at::full({rows, hidden_size}, 0.5, at::kFloat);
  const auto inner = at::full({rows, intermediate_size}, 0.5, at::kFloat);
  const auto gate = at::full({intermediate_size, hidden_size}, 0.5, at::kFloat);
  const auto down = at::full({hidden_size, intermediate_size}, 0.5, at::kFloat);
  auto gated = at::empty_like(inner);
  auto out = at::empty_like(hidden);
  const auto passes = times_per_second([&] {
    at::mm_out(gated, hidden, gate.t());
    at::mm_out(out, inner, down.t());
  });
  return passes * 4.0 * static_cast<double>(rows * hidden_size * intermediate_size);
}

}  // namespace gemma::cli
