#include <algorithm>
#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <gemma/ops/parallel.h>

namespace gemma {
namespace {

class ParallelFor : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(kThreads); }
  void TearDown() override { at::set_num_threads(before_); }

  static constexpr int kThreads = 4;

 private:
  int before_ = at::get_num_threads();
};

TEST_F(ParallelFor, RunsEachTaskOnce) {
  for (const int64_t count : {0, 1, 2, 3, 4, 5, 1000, 100'000}) {
    std::vector<std::atomic<int>> runs(count);
    std::atomic<bool> valid{true};
    const auto workers = num_workers();
    parallel_for(count, [&](int64_t task, int64_t worker) {
      ++runs[task];
      if (worker < 0 || worker >= workers) valid = false;
    });
    EXPECT_TRUE(valid);
    EXPECT_TRUE(std::all_of(runs.begin(), runs.end(), [](const auto& n) { return n == 1; }))
        << count << " tasks";
  }
}

// As many tasks as threads, of which none ends before all have begun.
std::set<std::thread::id> all_threads(int count) {
  std::vector<std::thread::id> ids(count);
  std::atomic<int> begun{0};
  parallel_for(count, [&](int64_t task, int64_t /*worker*/) {
    ids[task] = std::this_thread::get_id();
    ++begun;
    while (begun < count) std::this_thread::yield();
  });
  return {ids.begin(), ids.end()};
}

TEST_F(ParallelFor, KeepsItsThreadsWhenTasksAreFew) {
  const auto ids = all_threads(kThreads);
  EXPECT_EQ(ids.size(), kThreads);
  for (int round = 0; round < 20; ++round) {
    parallel_for(2, [](int64_t /*task*/, int64_t /*worker*/) {});
    EXPECT_EQ(all_threads(kThreads), ids) << "round " << round;
  }
}

TEST_F(ParallelFor, IsAloneInsideAnotherRegion) {
  std::atomic<int64_t> tasks{0};
  std::atomic<bool> alone{true};
  parallel_for(kThreads, [&](int64_t /*task*/, int64_t /*worker*/) {
    const auto caller = std::this_thread::get_id();
    if (num_workers() != 1) alone = false;
    parallel_for(10, [&](int64_t /*task*/, int64_t worker) {
      ++tasks;
      if (worker != 0 || std::this_thread::get_id() != caller) alone = false;
    });
  });
  EXPECT_EQ(tasks, 10 * kThreads);
  EXPECT_TRUE(alone);
}

}  // namespace
}  // namespace gemma
