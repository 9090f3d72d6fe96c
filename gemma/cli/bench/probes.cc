#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <new>
#include <unistd.h>

#include <ATen/ATen.h>
#include <sys/mman.h>

#include <gemma/cli/bench/probes.h>
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

// Not a power of two: the streams in a part would meet in the same sets of the caches.
constexpr int64_t kPart = (int64_t{4} << 20) + 2304;

}  // namespace

void StreamProbe::map() {
  constexpr int64_t kLeast = int64_t{256} << 20;
  constexpr int64_t kTimesCache = 8;
  const int64_t cache = std::max(0L, ::sysconf(_SC_LEVEL3_CACHE_SIZE));
  const auto parts = std::max(kLeast, kTimesCache * cache) / kPart + 1;
  const auto size = static_cast<size_t>(parts * kPart);
  auto* const got =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (got == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<char*>(got);
  parts_ = parts;
  // Looking up small pages slows reading down.
  ::madvise(data_, size, MADV_HUGEPAGE);
  // Pages that were never written are all the same one, which would stay in the cache.
  std::fill_n(data_, size, 1);
}

StreamProbe::~StreamProbe() {
  if (data_ != nullptr) ::munmap(data_, static_cast<size_t>(bytes()));
}

int64_t StreamProbe::bytes() const { return parts_ * kPart; }

double StreamProbe::rate() {
  if (data_ == nullptr) map();
  std::atomic<uint32_t> sum = 0;
  const auto passes = times_per_second([&] {
    parallel_for(parts_, [&](int64_t i, int64_t /*worker*/) {
      sum += cpu::kernels().read_memory(data_ + i * kPart, kPart);
    });
  });
  return passes * static_cast<double>(bytes());
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

SgemmProbe::SgemmProbe(int64_t rows, int64_t hidden_size, int64_t intermediate_size)
    : hidden_(at::full({rows, hidden_size}, 0.5, at::kFloat)),
      inner_(at::full({rows, intermediate_size}, 0.5, at::kFloat)),
      gate_(at::full({intermediate_size, hidden_size}, 0.5, at::kFloat)),
      down_(at::full({hidden_size, intermediate_size}, 0.5, at::kFloat)),
      gated_(at::empty_like(inner_)),
      out_(at::empty_like(hidden_)) {}

double SgemmProbe::rate() {
  const auto passes = times_per_second([this] {
    at::mm_out(gated_, hidden_, gate_.t());
    at::mm_out(out_, inner_, down_.t());
  });
  return passes * 4.0 * static_cast<double>(hidden_.numel() * gate_.size(0));
}

}  // namespace gemma::cli
