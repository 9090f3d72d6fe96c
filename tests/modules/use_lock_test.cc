#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "tests/testing.h"

#include <gemma/modules/linear.h>
#include <gemma/modules/use_lock.h>
#include <gemma/ops/parallel.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;

constexpr auto kAWhile = std::chrono::milliseconds(50);

bool has_ended(const std::future<void>& work) {
  return work.wait_for(kAWhile) == std::future_status::ready;
}

TEST(UseLock, LetsComputationsRunSideBySide) {
  UseLock lock;
  const UseLock::Use use(lock);
  const auto other = std::async(std::launch::async, [&] { const UseLock::Use other_use(lock); });
  EXPECT_TRUE(has_ended(other));
}

TEST(UseLock, AChangeWaitsForComputations) {
  UseLock lock;
  auto use = std::make_unique<UseLock::Use>(lock);
  const auto change =
      std::async(std::launch::async, [&] { const UseLock::Change own(lock, "to"); });
  EXPECT_FALSE(has_ended(change));
  use.reset();
  EXPECT_TRUE(has_ended(change));
}

TEST(UseLock, ComputationsWaitForAChange) {
  UseLock lock;
  auto change = std::make_unique<UseLock::Change>(lock, "to");
  const auto use = std::async(std::launch::async, [&] { const UseLock::Use other_use(lock); });
  EXPECT_FALSE(has_ended(use));
  change.reset();
  EXPECT_TRUE(has_ended(use));
}

// Else a change would never come where computations overlap.
TEST(UseLock, AWaitingChangeGoesBeforeNewComputations) {
  UseLock lock;
  auto first = std::make_unique<UseLock::Use>(lock);
  std::atomic<bool> changed{false};
  const auto change = std::async(std::launch::async, [&] {
    const UseLock::Change own(lock, "to");
    changed = true;
  });
  EXPECT_FALSE(has_ended(change));
  const auto late = std::async(std::launch::async, [&] {
    const UseLock::Use use(lock);
    EXPECT_TRUE(changed);
  });
  EXPECT_FALSE(has_ended(late));
  first.reset();
  EXPECT_TRUE(has_ended(change));
  EXPECT_TRUE(has_ended(late));
}

TEST(UseLock, AThreadMayUseAndChangeWhatItHolds) {
  UseLock lock;
  {
    const UseLock::Use outer(lock), inner(lock);
  }
  const UseLock::Change outer(lock, "to"), inner(lock, "to");
  const UseLock::Use use(lock);
}

TEST(UseLock, RefusesAChangeInsideAComputationOfTheSameThread) {
  UseLock lock;
  const UseLock::Use use(lock);
  EXPECT_EQ(message_of<std::logic_error>([&] { const UseLock::Change change(lock, "to"); }),
            "to: a callback of a running computation cannot change the model; call it afterwards");
}

TEST(UseLock, HoldsBackChangesOfAModule) {
  Linear linear(2, 2, /*quant=*/false);
  const UseLock::Use use(linear->use_lock());
  EXPECT_THROW(linear->set_numerics(Numerics::kFast), std::logic_error);
  EXPECT_THROW(linear->to(at::kDouble), std::logic_error);
}

// What `work` says in a process that was forked.
std::string said_by_a_child(const std::function<void()>& work) {
  int pipe_ends[2];
  EXPECT_EQ(::pipe(pipe_ends), 0);
  const auto child = ::fork();
  if (child == 0) {
    ::alarm(20);  // A child that hangs says nothing.
    std::string said = "nothing";
    try {
      work();
    } catch (const std::exception& error) {
      said = error.what();
    }
    [[maybe_unused]] const auto written = ::write(pipe_ends[1], said.data(), said.size());
    ::_exit(0);
  }
  ::close(pipe_ends[1]);
  std::string said;
  char buffer[512];
  for (ssize_t size = 0; (size = ::read(pipe_ends[0], buffer, sizeof buffer)) > 0;) {
    said.append(buffer, static_cast<size_t>(size));
  }
  ::close(pipe_ends[0]);
  ::waitpid(child, nullptr, 0);
  return said;
}

class Fork : public ::testing::Test {
 protected:
  Fork() : threads_(at::get_num_threads()) { at::set_num_threads(2); }
  ~Fork() override { at::set_num_threads(threads_); }

 private:
  int threads_;
};

TEST_F(Fork, ComputingAfterItIsRefusedInTheChildInsteadOfAHang) {
  parallel_for(8, [](int64_t /*task*/, int64_t /*worker*/) {});
  const auto in_region = [] { parallel_for(8, [](int64_t /*task*/, int64_t /*worker*/) {}); };
  EXPECT_TRUE(contains(said_by_a_child(in_region), "forked after its parent had computed"));
  const auto in_use = [] {
    UseLock lock;
    const UseLock::Use use(lock);
  };
  EXPECT_TRUE(contains(said_by_a_child(in_use), "multiprocessing's \"spawn\" method"));
  in_use();  // The parent computes as before.
}

TEST_F(Fork, AChildMayComputeWithOneThread) {
  parallel_for(8, [](int64_t /*task*/, int64_t /*worker*/) {});
  EXPECT_EQ(said_by_a_child([] {
              at::set_num_threads(1);
              UseLock lock;
              const UseLock::Use use(lock);
              parallel_for(8, [](int64_t /*task*/, int64_t /*worker*/) {});
            }),
            "nothing");
}

}  // namespace
}  // namespace gemma
