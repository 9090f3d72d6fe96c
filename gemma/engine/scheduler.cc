#include <algorithm>
#include <cmath>
#include <utility>

#include <gemma/engine/scheduler.h>

namespace gemma {
namespace {

constexpr double kSecondsPerPriority = 10;
// A prompt pass beside others takes as long as so many decode passes: then they make it less than
// a third slower, with what shorter parts cost.
constexpr double kDecodesPerPrompt = 8;
// A part of a prompt is not shorter than this for the sake of time.
constexpr int64_t kLeastPart = 32;

}  // namespace

std::string_view to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kError:
      return "error";
  }
  return {};
}

Scheduler::Scheduler(PassRunner& runner,
                     const SchedulerOptions& options,
                     std::function<double()> clock)
    : runner_(runner), options_(options), clock_(std::move(clock)) {}

void Scheduler::arrive(Job& job) {
  job.arrived_ = clock_();
  job.number_ = submitted_++;
}

void Scheduler::submit(std::shared_ptr<Job> job) {
  arrive(*job);
  waiting_.push_back(std::move(job));
}

void Scheduler::resume(std::shared_ptr<Job> job) {
  arrive(*job);
  paused_.push_back(std::move(job));
}

void Scheduler::end(Job& job, FinishReason reason) { ended_.emplace_back(&job, reason); }

void Scheduler::end_all(FinishReason reason) {
  while (running() + waiting() > 0) {  // The end of one may let others come.
    for (auto* jobs : {&waiting_, &running_, &paused_}) {
      for (const auto& job : *jobs) end(*job, reason);
    }
    finish_ended();
  }
}

bool Scheduler::run_once() {
  leave();
  admit();
  decode();
  prompt();
  return !(waiting_.empty() && running_.empty() && paused_.empty());
}

// The youngest of the lowest priority.
bool Scheduler::pauses_before(const Job& a, const Job& b) {
  return a.priority != b.priority ? a.priority < b.priority : a.number_ > b.number_;
}

// Jobs that were cancelled, or are too late.
void Scheduler::leave() {
  const auto now = clock_();
  for (auto* jobs : {&waiting_, &running_, &paused_}) {
    for (const auto& job : *jobs) {
      if (job->is_cancelled()) {
        end(*job, FinishReason::kCancelled);
      } else if (now >= job->deadline) {
        end(*job, FinishReason::kDeadline);
      }
    }
  }
  finish_ended();
}

// What waits longer comes first in the end, whatever the priorities of those that come after it.
double Scheduler::rank(const Job& job) { return job.priority - job.arrived_ / kSecondsPerPriority; }

void Scheduler::sort(Jobs& jobs) {
  std::ranges::sort(jobs, [](const auto& a, const auto& b) {
    const auto of_a = rank(*a), of_b = rank(*b);
    return of_a != of_b ? of_a > of_b : a->number_ < b->number_;
  });
}

// Paused jobs go on before others begin.
void Scheduler::admit() {
  sort(paused_);
  while (!paused_.empty() && running() < options_.max_batch) {
    // Room for the next of all, or it would pause again at once.
    std::vector<Job*> jobs;
    for (const auto& job : running_) jobs.push_back(job.get());
    jobs.push_back(paused_.front().get());
    if (!running_.empty() && !(runner_.has_room(jobs) && runner_.should_admit(*paused_.front()))) {
      return;
    }
    running_.push_back(std::move(paused_.front()));
    paused_.erase(paused_.begin());
  }
  sort(waiting_);
  while (!waiting_.empty() && running() < options_.max_batch) {
    while (!runner_.should_admit(*waiting_.front()) && runner_.evict()) {
    }
    if (!running_.empty() && !runner_.should_admit(*waiting_.front())) return;
    running_.push_back(std::move(waiting_.front()));
    waiting_.erase(waiting_.begin());
  }
}

void Scheduler::decode() {
  std::vector<Job*> jobs;
  for (const auto& job : running_) {
    if (job->pending_token()) jobs.push_back(job.get());
  }
  if (jobs.empty() || !make_room_for(jobs)) return;
  const auto start = clock_();
  runner_.decode(jobs);
  decode_seconds_ = clock_() - start;
  finish_ended();
}

// Pauses jobs until the others have room for a token each; these remain in `jobs`.
bool Scheduler::make_room_for(std::vector<Job*>& jobs) {
  while (!runner_.has_room(jobs)) {
    if (runner_.evict()) continue;
    if (jobs.size() > 1) {
      const auto last = std::ranges::min_element(
          jobs, [](const Job* a, const Job* b) { return pauses_before(*a, *b); });
      pause(**last);
      jobs.erase(last);
    } else if (!take_memory(*jobs.front())) {
      end(*jobs.front(), FinishReason::kLength);  // All memory is its own.
      finish_ended();
      return false;
    }
  }
  return true;
}

void Scheduler::pause(const Job& job) {
  const auto found =
      std::ranges::find_if(running_, [&](const auto& other) { return other.get() == &job; });
  paused_.push_back(std::move(*found));
  running_.erase(found);
}

// Takes the memory of a job other than `job` -> whether there was one: a paused one if there is
// one, that which would go on last, else that which would pause first. It begins anew.
bool Scheduler::take_memory(const Job& job) {
  sort(paused_);
  auto* jobs = &paused_;
  auto found = paused_.end() - (paused_.empty() ? 0 : 1);
  if (paused_.empty()) {
    jobs = &running_;
    found = running_.end();
    for (auto other = running_.begin(); other != running_.end(); ++other) {
      if (other->get() == &job) continue;
      if (found == running_.end() || pauses_before(**other, **found)) found = other;
    }
    if (found == running_.end()) return false;
  }
  runner_.drop(**found);
  waiting_.push_back(std::move(*found));
  jobs->erase(found);
  return true;
}

int64_t Scheduler::prompt_tokens() const {
  const bool alone =
      std::ranges::none_of(running_, [](const auto& job) { return job->pending_token(); });
  if (alone) return options_.chunk;
  if (prompt_rate_ == 0) return kLeastPart;
  const auto seconds = std::max(kDecodesPerPrompt * decode_seconds_, options_.prompt_time);
  const auto tokens = static_cast<int64_t>(std::min(1e9, seconds * prompt_rate_));
  return std::clamp(tokens, kLeastPart, options_.chunk_beside);
}

void Scheduler::prompt() {
  std::vector<PromptChunk> parts;
  auto room = prompt_tokens();
  int64_t total = 0;
  for (const auto& job : running_) {
    if (room <= 0) break;
    if (job->pending_prompt() == 0) continue;
    runner_.begin(*job);
    const auto tokens = runner_.part_of(*job, room);
    if (tokens == 0) continue;
    parts.push_back({job.get(), tokens});
    while (!runner_.has_room(parts) && runner_.evict()) {
    }
    if (!runner_.has_room(parts)) {
      parts.pop_back();
      break;
    }
    room -= tokens;
    total += tokens;
  }
  if (parts.empty()) {
    // Nobody else can go on: a prompt has to get its room, or to end.
    const auto stuck =
        std::ranges::find_if(running_, [](const auto& job) { return job->pending_prompt() > 0; });
    const bool others =
        std::ranges::any_of(running_, [](const auto& job) { return job->pending_token(); });
    if (stuck == running_.end() || others || take_memory(**stuck)) return;
    end(**stuck, FinishReason::kLength);
    return finish_ended();
  }
  const auto start = clock_();
  runner_.prompt(parts);
  const auto seconds = clock_() - start;
  if (seconds > 0) {
    const auto rate = static_cast<double>(total) / seconds;
    prompt_rate_ = prompt_rate_ == 0 ? rate : 0.5 * (prompt_rate_ + rate);
  }
  finish_ended();
}

void Scheduler::finish_ended() {
  for (const auto& [ended, reason] : std::exchange(ended_, {})) {
    const auto is_it = [job = ended](const auto& other) { return other.get() == job; };
    for (auto* jobs : {&waiting_, &running_, &paused_}) {
      const auto found = std::ranges::find_if(*jobs, is_it);
      if (found == jobs->end()) continue;
      const auto job = std::move(*found);
      jobs->erase(found);
      runner_.finish(*job, reason);
      break;
    }
  }
}

}  // namespace gemma
