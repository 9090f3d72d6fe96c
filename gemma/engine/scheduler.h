#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace gemma {

/// Why a job ended.
enum class FinishReason {
  kStop,       ///< A stop token or string.
  kLength,     ///< As many tokens as asked for, or as the model has positions.
  kCancelled,  ///< cancel().
  kDeadline,   ///< Its time was over.
  kError,      ///< What went wrong was told to the job.
};

/// "stop", "length", "cancelled", "deadline" or "error".
std::string_view to_string(FinishReason reason);

/// A text that is to be continued, as the scheduler sees it.
class Job {
 public:
  virtual ~Job() = default;

  /// Tokens that have not gone through the model, and belong to a prompt: no generated token is
  /// before them. 0 when a generated token is next, or none is left.
  virtual int64_t pending_prompt() const = 0;
  /// Whether a generated token is next.
  virtual bool pending_token() const = 0;

  /// From any thread. Looked at before every pass.
  void cancel() { cancelled_ = true; }
  bool is_cancelled() const { return cancelled_; }

  int priority = 0;  ///< Higher ones first. A job that waits gains one every 10 seconds.
  double deadline = std::numeric_limits<double>::infinity();  ///< By the scheduler's clock.

 private:
  friend class Scheduler;
  std::atomic<bool> cancelled_ = false;
  double arrived_ = 0;
  int64_t number_ = 0;  // In the order of arrival.
};

/// A number of prompt tokens of a job.
struct PromptChunk {
  Job* job;
  int64_t tokens;
};

/// What runs the passes of a scheduler, and holds the memory of jobs.
class PassRunner {
 public:
  virtual ~PassRunner() = default;

  /// Whether there is room for one more token of each job, or for the parts.
  virtual bool has_room(std::span<Job* const> jobs) const = 0;
  virtual bool has_room(std::span<const PromptChunk> parts) const = 0;
  /// Whether a job that has not begun should: its prompt has room, and some of what follows.
  virtual bool should_admit(const Job& job) = 0;
  /// The job's prompt is to go on. Of one that has not begun, a part may turn out to be known, and
  /// is no longer pending then.
  virtual void begin(Job& job) = 0;

  /// Runs a pass. Jobs that end by it are told to Scheduler::end.
  virtual void decode(std::span<Job* const> jobs) = 0;
  virtual void prompt(std::span<const PromptChunk> parts) = 0;

  /// The largest part of a job's prompt, of at most `most` tokens, that can go through at once.
  virtual int64_t part_of(const Job& job, int64_t most) const = 0;

  /// Frees memory of what does not run -> whether there was any.
  virtual bool evict() = 0;

  /// Takes the memory of a job, all of whose tokens are pending again then.
  virtual void drop(Job& job) = 0;

  /// The job is over; nothing of it is used after this.
  virtual void finish(Job& job, FinishReason reason) = 0;
};

struct SchedulerOptions {
  /// Most jobs that run together.
  int64_t max_batch = 32;
  /// Most prompt tokens of a pass: alone, and beside texts that are being continued.
  int64_t chunk = 512;
  int64_t chunk_beside = 256;
  /// A prompt pass beside others takes no longer than eight decode passes, or this, in seconds.
  double prompt_time = 0.05;
};

/// Decides what runs in the next pass. Jobs join and leave between passes: one more token of each
/// running text, then parts of prompts in a limited time. Where memory is short, the youngest job
/// of the lowest priority pauses; where it still is, a paused job gives its memory back, and its
/// tokens go through the model again later. For one thread, but for Job::cancel.
class Scheduler {
 public:
  Scheduler(PassRunner& runner, const SchedulerOptions& options, std::function<double()> clock);

  void submit(std::shared_ptr<Job> job);

  /// The job has begun elsewhere: it goes on before others begin.
  void resume(std::shared_ptr<Job> job);

  /// The job ends with this pass. Called by PassRunner from within a pass.
  void end(Job& job, FinishReason reason);

  /// Ends all jobs, outside of a pass.
  void end_all(FinishReason reason);

  /// Runs a decode pass and a prompt pass, where there are jobs for them -> whether any job is
  /// left.
  bool run_once();

  int64_t running() const { return std::ssize(running_); }
  int64_t waiting() const { return std::ssize(waiting_) + std::ssize(paused_); }

 private:
  using Jobs = std::vector<std::shared_ptr<Job>>;

  void arrive(Job& job);
  void leave();
  void admit();
  void decode();
  void prompt();
  bool make_room_for(std::vector<Job*>& jobs);
  void pause(const Job& job);
  static bool pauses_before(const Job& a, const Job& b);
  bool take_memory(const Job& job);
  static double rank(const Job& job);
  static void sort(Jobs& jobs);
  int64_t prompt_tokens() const;
  void finish_ended();

  PassRunner& runner_;
  SchedulerOptions options_;
  std::function<double()> clock_;
  Jobs waiting_, running_, paused_;
  std::vector<std::pair<Job*, FinishReason>> ended_;
  int64_t submitted_ = 0;
  double decode_seconds_ = 0;  // Of the last decode pass.
  double prompt_rate_ = 0;     // Tokens a second of prompt passes; 0: not known.
};

}  // namespace gemma
