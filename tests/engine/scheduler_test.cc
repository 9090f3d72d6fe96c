#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include <gemma/engine/scheduler.h>

namespace gemma {
namespace {

constexpr int64_t kBlock = 64;

// A text of numbers: `done` of them have gone through the model, and hold blocks. The first ones
// may be the cache's.
struct FakeJob : Job {
  int64_t prompt = 1, wanted = 1;  // Tokens.
  int64_t generated = 0, done = 0, shared = 0;
  bool is_over = false;
  double submitted = 0, begun = -1, ended = -1;
  FinishReason reason = FinishReason::kError;

  int64_t size() const { return prompt + generated; }
  int64_t blocks() const { return (done + kBlock - 1) / kBlock - shared; }
  int64_t pending_prompt() const override { return std::max<int64_t>(0, prompt - done); }
  bool pending_token() const override { return done >= prompt && done < size(); }
};

FakeJob& fake(Job& job) { return dynamic_cast<FakeJob&>(job); }
const FakeJob& fake(const Job& job) { return dynamic_cast<const FakeJob&>(job); }

// Blocks and a clock; checks what every pass has to keep to. All prompts begin alike, and what an
// ended job had of its prompt is kept.
class FakeRunner : public PassRunner {
 public:
  explicit FakeRunner(int64_t blocks) : blocks_(blocks), free_(blocks) {}

  void attach(Scheduler& scheduler) { scheduler_ = &scheduler; }
  double now() const { return now_; }
  void wait(double seconds) { now_ += seconds; }
  // A clock moves while one looks at it.
  double tick() { return now_ += 1e-7; }
  int64_t free() const { return free_; }
  int64_t blocks() const { return blocks_; }
  int64_t cached() const { return cached_; }

  bool has_room(std::span<Job* const> jobs) const override {
    int64_t wanted = 0;
    for (const auto* job : jobs) wanted += missing(fake(*job), 1);
    return wanted <= free_;
  }
  bool has_room(std::span<const PromptChunk> parts) const override {
    int64_t wanted = 0;
    for (const auto& [job, tokens] : parts) wanted += missing(fake(*job), tokens);
    return wanted <= free_;
  }
  bool should_admit(const Job& job) override {
    return missing(fake(job), fake(job).size() - fake(job).done + 64) <= free_;
  }
  void begin(Job& job) override {
    auto& begun = fake(job);
    if (begun.done > 0) return;
    begun.shared = std::min(cached_, (begun.prompt - 1) / kBlock);
    begun.done = begun.shared * kBlock;
    if (begun.shared > 0) sharers_.insert(&begun);
    known += begun.shared;
  }
  int64_t part_of(const Job& job, int64_t most) const override {
    return std::min(most, job.pending_prompt());
  }

  void decode(std::span<Job* const> jobs) override {
    ++decode_passes;
    largest_batch = std::max(largest_batch, std::ssize(jobs));
    std::set<Job*> once(jobs.begin(), jobs.end());
    EXPECT_EQ(std::ssize(once), std::ssize(jobs));
    for (auto* job : jobs) {
      EXPECT_TRUE(job->pending_token());
      advance(fake(*job), 1);
    }
    now_ += 0.02 + 0.001 * static_cast<double>(jobs.size());
  }
  void prompt(std::span<const PromptChunk> parts) override {
    int64_t total = 0;
    for (const auto& [job, tokens] : parts) {
      EXPECT_GT(tokens, 0);
      EXPECT_LE(tokens, job->pending_prompt());
      total += tokens;
      advance(fake(*job), tokens);
    }
    largest_part = std::max(largest_part, total);
    now_ += 0.001 * static_cast<double>(total);
  }
  bool evict() override {
    const auto shares_last = [&](const FakeJob* job) { return job->shared == cached_; };
    if (cached_ == 0 || std::ranges::any_of(sharers_, shares_last)) return false;
    --cached_;
    ++free_;
    return true;
  }
  void drop(Job& job) override {
    ++drops;
    release(fake(job));
  }
  void finish(Job& job, FinishReason reason) override {
    auto& ended = fake(job);
    EXPECT_FALSE(ended.is_over) << "ended twice";
    ended.is_over = true;
    ended.ended = now_;
    ended.reason = reason;
    const auto kept = std::min(ended.done, ended.prompt) / kBlock;
    if (kept > cached_) {
      ended.shared += kept - cached_;
      cached_ = kept;
    }
    release(ended);
  }

  int64_t known = 0;  // Blocks that jobs began with.
  int64_t decode_passes = 0, largest_batch = 0, largest_part = 0, drops = 0;

 private:
  static int64_t missing(const FakeJob& job, int64_t tokens) {
    return (job.done + tokens + kBlock - 1) / kBlock - job.shared - job.blocks();
  }

  void release(FakeJob& job) {
    free_ += job.blocks();
    job.done = job.shared = 0;
    sharers_.erase(&job);
  }

  void advance(FakeJob& job, int64_t tokens) {
    if (job.begun < 0) job.begun = now_;
    const auto wanted = missing(job, tokens);
    free_ -= wanted;
    EXPECT_GE(free_, 0);
    job.done += tokens;
    if (job.done < job.size()) return;
    if (job.generated == job.wanted) return scheduler_->end(job, FinishReason::kLength);
    ++job.generated;
  }

  int64_t blocks_, free_, cached_ = 0;
  std::set<FakeJob*> sharers_;
  double now_ = 0;
  Scheduler* scheduler_ = nullptr;
};

struct SchedulerTest : ::testing::Test {
  explicit SchedulerTest(int64_t blocks = 40) : runner(blocks) { runner.attach(scheduler); }

  std::shared_ptr<FakeJob> submit(int64_t prompt, int64_t wanted, int priority = 0) {
    auto job = std::make_shared<FakeJob>();
    job->prompt = prompt;
    job->wanted = wanted;
    job->priority = priority;
    job->submitted = runner.now();
    scheduler.submit(job);
    return job;
  }

  void run_to_end(int64_t most = 100000) {
    while (scheduler.run_once() && --most > 0) {
    }
    EXPECT_GT(most, 0);
  }

  FakeRunner runner;
  Scheduler scheduler{runner, {.max_batch = 8}, [this] { return runner.tick(); }};
};

TEST_F(SchedulerTest, RunsAJobToItsEnd) {
  const auto job = submit(700, 30);
  run_to_end();
  EXPECT_TRUE(job->is_over);
  EXPECT_EQ(job->generated, 30);
  EXPECT_EQ(runner.decode_passes, 30);
  EXPECT_EQ(runner.largest_part, 512);
  EXPECT_EQ(runner.free() + runner.cached(), runner.blocks());
}

TEST_F(SchedulerTest, JobsJoinBetweenPasses) {
  const auto first = submit(10, 100);
  for (int i = 0; i < 10; ++i) scheduler.run_once();
  const auto second = submit(10, 5);
  run_to_end();
  EXPECT_LT(second->ended, first->ended);
  EXPECT_EQ(runner.largest_batch, 2);
}

// A long prompt goes in parts beside texts: none takes much longer than eight decode passes, and
// all of them little longer than the prompt would alone.
TEST_F(SchedulerTest, ALongPromptAndTextsLeaveTimeToEachOther) {
  constexpr double kDecode = 0.021, kAlone = 1.5;
  submit(10, 1000);
  for (int i = 0; i < 5; ++i) scheduler.run_once();
  const auto long_prompt = submit(1500, 1);
  const auto start = runner.now();
  double longest = 0;
  while (!long_prompt->is_over) {
    const auto before = runner.now();
    scheduler.run_once();
    longest = std::max(longest, runner.now() - before);
  }
  EXPECT_LT(longest, 9.1 * kDecode);
  EXPECT_LT(runner.now() - start, 1.3 * kAlone);
}

TEST_F(SchedulerTest, HigherPrioritiesBeginFirstButTimeCountsToo) {
  for (int i = 0; i < 8; ++i) submit(64, 200 + 20 * i);  // All places.
  scheduler.run_once();
  const auto low = submit(10, 1);
  const auto high = submit(10, 1, /*priority=*/2);
  run_to_end();
  EXPECT_LT(high->begun, low->begun);
  for (int i = 0; i < 8; ++i) submit(64, 200 + 20 * i);
  scheduler.run_once();
  const auto old = submit(10, 1);
  runner.wait(25);
  const auto young = submit(10, 1, /*priority=*/2);
  run_to_end();
  EXPECT_LT(old->begun, young->begun);
}

TEST_F(SchedulerTest, CancelledAndLateJobsLeaveBeforeThePass) {
  const auto cancelled = submit(10, 1000);
  const auto late = submit(10, 1000);
  late->deadline = runner.now() + 1;
  const auto other = submit(10, 200);
  for (int i = 0; i < 5; ++i) scheduler.run_once();
  cancelled->cancel();
  const auto before = cancelled->generated;
  run_to_end();
  EXPECT_EQ(cancelled->reason, FinishReason::kCancelled);
  EXPECT_EQ(cancelled->generated, before);
  EXPECT_EQ(late->reason, FinishReason::kDeadline);
  EXPECT_LT(late->ended, 1.1);
  EXPECT_EQ(other->generated, 200);
}

// Each alone has room, not all together.
TEST_F(SchedulerTest, WhereMemoryIsShortJobsPauseAndGoOn) {
  std::vector<std::shared_ptr<FakeJob>> jobs;
  for (int i = 0; i < 8; ++i) jobs.push_back(submit(200, 1500));
  run_to_end();
  for (const auto& job : jobs) {
    EXPECT_EQ(job->reason, FinishReason::kLength);
    EXPECT_EQ(job->generated, 1500);
  }
  EXPECT_GT(runner.drops, 0);
  EXPECT_EQ(runner.free() + runner.cached(), runner.blocks());
}

TEST_F(SchedulerTest, AJobThatAllMemoryCannotHoldEnds) {
  const auto prompt = submit(40 * kBlock + 1, 10);
  const auto text = submit(100, 100 * kBlock);
  const auto other = submit(100, 100);
  run_to_end();
  EXPECT_TRUE(prompt->is_over);
  EXPECT_TRUE(text->is_over);
  EXPECT_LT(text->generated, 100 * kBlock);
  EXPECT_EQ(other->generated, 100);
}

// A million random events. Blocks are counted in FakeRunner; nobody ends twice or starves.
TEST_F(SchedulerTest, KeepsItsPromisesWhateverHappens) {
  std::mt19937 random(1);
  std::vector<std::shared_ptr<FakeJob>> live;
  int64_t ended = 0;
  for (int64_t event = 0; event < 1'000'000; ++event) {
    const auto what = random() % 100;
    if (what < 15 && live.size() < 40) {
      const auto prompt = 1 + static_cast<int64_t>(random() % (random() % 10 == 0 ? 2000 : 200));
      live.push_back(
          submit(prompt, 1 + static_cast<int64_t>(random() % 150), static_cast<int>(random() % 3)));
      if (random() % 5 == 0) live.back()->deadline = runner.now() + random() % 100;
    } else if (what < 16 && !live.empty()) {
      live[random() % live.size()]->cancel();
    } else {
      scheduler.run_once();
      int64_t held = 0;
      for (const auto& job : live) held += job->blocks();
      ASSERT_EQ(runner.free() + runner.cached() + held, runner.blocks());
      ASSERT_EQ(scheduler.running() + scheduler.waiting(),
                std::ranges::count_if(live, [](const auto& job) { return !job->is_over; }));
      std::erase_if(live, [&](const auto& job) {
        if (!job->is_over) {
          EXPECT_LT(runner.now() - job->submitted, 2000) << "starves";
          return false;
        }
        ++ended;
        return true;
      });
      if (HasFailure()) return;
    }
  }
  run_to_end();
  EXPECT_EQ(runner.free() + runner.cached(), runner.blocks());
  EXPECT_GT(ended, 10000);
  EXPECT_GT(runner.drops, 0);
  EXPECT_GT(runner.known, 1000);
}

// What is kept goes before a job has to pause.
TEST_F(SchedulerTest, WhatIsKeptOfEndedJobsGivesWay) {
  submit(30 * kBlock, 1);
  run_to_end();
  EXPECT_EQ(runner.cached(), 30);
  const auto job = submit(kBlock, 38 * kBlock);
  run_to_end();
  EXPECT_EQ(job->generated, 38 * kBlock);
  EXPECT_EQ(runner.drops, 0);
}

}  // namespace
}  // namespace gemma
