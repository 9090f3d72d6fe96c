#include <algorithm>
#include <chrono>
#include <future>
#include <ranges>
#include <stdexcept>
#include <unistd.h>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/engine/engine_core.h>

namespace gemma {
namespace {

// Room for so many tokens of an answer is wanted before a text begins.
constexpr int64_t kAnswerRoom = 256;

// Most rows of a decode pass with guesses. On two cores without AMX a pass of 8 rows took 1.25
// times as long as one of a single row, one of 16 rows 2.3 times (the 270M in bfloat16).
constexpr int64_t kMostRows = 16;

GenerationState& state_of(Job& job) { return dynamic_cast<GenerationState&>(job); }
const GenerationState& state_of(const Job& job) {
  return dynamic_cast<const GenerationState&>(job);
}
const Text& text_of(const Job& job) { return state_of(job).text(); }

const Sequence* sequence_of(const Text& text) { return text.sequence ? &*text.sequence : nullptr; }

}  // namespace

EngineCore::EngineCore(EngineModel model, const EngineOptions& options)
    : model_(std::move(model)),
      runner_(model_,
              {.kv_dtype = options.kv_dtype,
               .kv_memory = options.kv_memory,
               .max_batch = options.max_batch,
               .chunk = options.chunk}),
      draft_tokens_(options.draft_tokens),
      scheduler_(*this, {.max_batch = options.max_batch, .chunk = runner_.options().chunk}, now),
      process_(getpid()) {
  model_->tokenizer();  // Throws where there is none.
  if (options.draft) use_draft(*options.draft, options);
  if (options.prefix_cache && !runner_.store()->has_slots()) {
    prefix_cache_.emplace(runner_.store());
  }
}

void EngineCore::use_draft(const EngineModel& model, const EngineOptions& options) {
  if (model->vocab_size() != model_->vocab_size()) {
    throw std::invalid_argument(fmt::format(
        "engine: the draft model has a vocabulary of {} tokens, but the model one of {}; give a "
        "smaller model of the same family",
        model->vocab_size(), model_->vocab_size()));
  }
  if (runner_.store()->has_slots()) {
    throw std::invalid_argument(
        "engine: a draft model, but the model's recurrent layers cannot take tokens back; give "
        "none");
  }
  if (draft_tokens_ < 1 || draft_tokens_ >= kMostRows) {
    throw std::invalid_argument(fmt::format("engine: draft_tokens is {}, but must be 1 to {}",
                                            draft_tokens_, kMostRows - 1));
  }
  draft_.emplace(model, RunnerOptions{.kv_dtype = options.kv_dtype,
                                      .max_batch = options.max_batch,
                                      .chunk = options.chunk});
}

double EngineCore::now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void EngineCore::start() {
  thread_ = std::thread([this] { run(); });
}

void EngineCore::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  posted_or_stopped_.notify_all();
  // The thread is not there in a process that was forked.
  if (getpid() != process_) return thread_.detach();
  thread_.join();
  run_posted();  // Texts may be among it that the thread has not seen.
  scheduler_.end_all(FinishReason::kCancelled);
}

void EngineCore::run() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      posted_or_stopped_.wait(lock, [&] { return stopped_ || busy_ || !posted_.empty(); });
      if (stopped_) break;
    }
    run_posted();
    run_pass();
  }
}

void EngineCore::run_posted() {
  std::deque<std::function<void()>> bodies;
  {
    const std::lock_guard lock(mutex_);
    bodies.swap(posted_);
  }
  for (const auto& body : bodies) body();
}

// Keys and values are of the model as it was when they were made.
void EngineCore::forget_other_model() {
  const auto version = model_->use_lock().version();
  if (std::exchange(version_, version) != version && prefix_cache_) prefix_cache_->clear();
}

void EngineCore::run_pass() {
  forget_other_model();
  const bool busy = scheduler_.run_once();
  const std::lock_guard lock(mutex_);
  busy_ = busy;
}

void EngineCore::submit(std::shared_ptr<GenerationState> job) {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_ || getpid() != process_) {
      throw std::logic_error(
          "engine: the engine is gone, or of another process; keep it as long as its sessions go "
          "on");
    }
  }
  job->session()->is_running = true;
  post([this, job = std::move(job)] {
    forget_other_model();
    if (std::exchange(job->session()->version, version_) != version_) {
      job->text().sequence.reset();
    }
    job->text().need_pending();
    scheduler_.submit(job);
    const std::lock_guard lock(mutex_);
    busy_ = true;
  });
}

void EngineCore::post(std::function<void()> body) {
  {
    const std::lock_guard lock(mutex_);
    if (!stopped_ && getpid() == process_) {
      posted_.push_back(std::move(body));
      body = nullptr;
    }
  }
  if (body) return body();
  posted_or_stopped_.notify_all();
}

void EngineCore::call(const std::function<void()>& body) {
  if (is_own_thread()) return body();
  std::packaged_task<void()> task(body);
  post([&task] { task(); });
  task.get_future().get();
}

Grammar EngineCore::compile(const GrammarSource& source) {
  {
    const std::lock_guard lock(grammars_mutex_);
    if (!grammars_) grammars_.emplace(model_->tokenizer(), model_->vocab_size());
  }
  return grammars_->compile(source);
}

EngineStatus EngineCore::status() {
  EngineStatus status{};
  call([&] {
    status = {.running = scheduler_.running(),
              .waiting = scheduler_.waiting(),
              .kv_bytes = runner_.store()->bytes(),
              .kv_bytes_free = runner_.store()->bytes_free(),
              .kv_bytes_cached = prefix_cache_ ? prefix_cache_->bytes() : 0};
  });
  return status;
}

NamedTensors EngineCore::snapshot(const SessionState& session) {
  NamedTensors tensors;
  call([&] {
    const UseLock::Use use(model_->use_lock());
    tensors = session_tensors(session.text, *runner_.store(), *model_);
  });
  return tensors;
}

void EngineCore::restore(const std::filesystem::path& path, SessionState& session) {
  auto saved = [&] {
    const UseLock::Use use(model_->use_lock());
    session.version = model_->use_lock().version();
    return read_session_file(path, *runner_.store(), *model_);
  }();
  call([&] {
    const auto has_room = [&] {
      const auto& store = *runner_.store();
      if (store.has_slots() && store.slots().pool.free() == 0) return false;
      for (size_t i = 0; i < saved.first.size(); ++i) {
        if (saved.blocks(i) > store.kinds()[i].pool.free()) return false;
      }
      return true;
    };
    while (!has_room() && evict()) {
    }
    session.text = std::move(saved.text);
    if (saved.length > 0 && has_room()) {
      session.text.sequence = restore_sequence(saved, runner_.store());
    }
  });
}

bool EngineCore::has_room(std::span<Job* const> jobs) const {
  std::vector<ModelRunner::Need> needs;
  for (const auto* job : jobs) needs.push_back({sequence_of(text_of(*job)), 1});
  return runner_.has_room(needs);
}

bool EngineCore::has_room(std::span<const PromptChunk> parts) const {
  std::vector<ModelRunner::Need> needs;
  for (const auto& [job, tokens] : parts) needs.push_back({sequence_of(text_of(*job)), tokens});
  return runner_.has_room(needs);
}

bool EngineCore::should_admit(const Job& job) {
  const auto& text = text_of(job);
  const bool is_known = prefix_cache_ && !text.sequence && !state_of(job).wants_scores();
  const auto done = is_known ? prefix_cache_->known(text) : text.done();
  const auto tokens = std::min(text.size() + kAnswerRoom, model_->max_positions()) - done;
  for (const auto& kind : runner_.store()->kinds()) {
    const auto wanted = kind.window ? std::min(kind.blocks(tokens, runner_.options().chunk),
                                               BlockCache::blocks_for(tokens) + 1)
                                    : BlockCache::blocks_for(tokens) + 1;
    if (wanted > kind.pool.free()) return false;
  }
  return !runner_.store()->has_slots() || runner_.store()->slots().pool.free() > 0;
}

void EngineCore::begin(Job& job) {
  auto& text = state_of(job).text();
  if (text.sequence || !prefix_cache_ || state_of(job).wants_scores()) return;
  text.sequence = prefix_cache_->find(text);
}

int64_t EngineCore::part_of(const Job& job, int64_t most) const {
  const auto& text = text_of(job);
  const auto part = text.part(most);
  return part > 0 ? part : text.part(runner_.options().chunk);  // An image goes whole.
}

void EngineCore::decode(std::span<Job* const> jobs) {
  std::vector<GenerationState*> states;
  for (auto* job : jobs) states.push_back(&state_of(*job));
  Guesses guesses;
  const auto run = [&] {
    guesses = guess(states);
    std::vector<std::vector<int64_t>> tokens;
    std::vector<ModelRunner::Feed> feeds;
    for (size_t i = 0; i < states.size(); ++i) {
      states[i]->begin();
      auto& text = states[i]->text();
      auto& of_text = tokens.emplace_back(1, text.tokens()[static_cast<size_t>(text.done())]);
      of_text.insert(of_text.end(), guesses[i].begin(), guesses[i].end());
      feeds.push_back({&*text.sequence, of_text});
    }
    auto hidden = runner_.try_out(feeds);
    for (const auto& feed : feeds) ModelRunner::accept(*feed.sequence, 1);
    return hidden;
  };
  pass(states, run, guesses);
}

// What is guessed to follow each text: where it said so before, else by the draft model. None where
// memory is short: the texts go on without.
EngineCore::Guesses EngineCore::guess(std::span<GenerationState* const> jobs) {
  Guesses guesses(jobs.size());
  if (runner_.store()->has_slots()) return guesses;
  const auto most = kMostRows / std::ssize(jobs) - 1;
  std::vector<DraftModel::Text> drafted;
  std::vector<size_t> places;
  for (size_t i = 0; i < jobs.size(); ++i) {
    guesses[i] = jobs[i]->look_up(most);
    const auto room = std::min({most, draft_tokens_, jobs[i]->room_for_guess()});
    const bool has_images = !jobs[i]->text().images().empty();
    if (!draft_ || !guesses[i].empty() || room < 1 || has_images) continue;
    drafted.push_back({jobs[i]->text().tokens(), &jobs[i]->draft, room});
    places.push_back(i);
  }
  if (!drafted.empty()) {
    auto by_draft = draft_->guess(drafted);
    for (size_t i = 0; i < places.size(); ++i) guesses[places[i]] = std::move(by_draft[i]);
  }
  for (size_t i = 0; i < jobs.size(); ++i) jobs[i]->cut_guess(guesses[i]);
  if (std::ranges::all_of(guesses, &std::vector<int64_t>::empty)) return guesses;
  std::vector<ModelRunner::Need> needs;
  for (size_t i = 0; i < jobs.size(); ++i) {
    needs.push_back({sequence_of(jobs[i]->text()), 1 + std::ssize(guesses[i])});
  }
  if (!runner_.has_room(needs)) guesses.assign(jobs.size(), {});
  return guesses;
}

void EngineCore::prompt(std::span<const PromptChunk> parts) {
  std::vector<GenerationState*> states;
  std::vector<std::vector<ImageTokens>> images(parts.size());
  std::vector<ModelRunner::Feed> feeds;
  for (size_t i = 0; i < parts.size(); ++i) {
    auto& text = state_of(*parts[i].job).text();
    states.push_back(&state_of(*parts[i].job));
    states.back()->begin();
    if (!text.sequence) text.sequence = runner_.make_sequence();
    images[i] = text.images_of(parts[i].tokens);
    feeds.push_back(
        {&*text.sequence,
         std::span(text.tokens())
             .subspan(static_cast<size_t>(text.done()), static_cast<size_t>(parts[i].tokens)),
         images[i]});
  }
  pass(states, [&] {
    const auto hidden = runner_.prompt(feeds, [&](size_t feed, const at::Tensor& of_feed) {
      if (states[feed]->wants_scores()) score(*states[feed], of_feed);
    });
    if (prefix_cache_) {
      for (const auto* state : states) prefix_cache_->insert(state->text());
    }
    return hidden;
  });
}

// Runs a pass, which makes the guesses, and gives the hidden states of each job's last token and of
// the guesses behind them; samples what follows. What goes wrong ends all of its jobs.
void EngineCore::pass(std::span<GenerationState* const> jobs,
                      const std::function<at::Tensor()>& run,
                      const Guesses& guesses) {
  joined_.clear();
  try {
    sample(jobs, run(), guesses);
  } catch (...) {
    joined_.insert(joined_.end(), jobs.begin(), jobs.end());
    for (auto* job : joined_) {
      job->fail(std::current_exception());
      scheduler_.end(*job, FinishReason::kError);
    }
  }
}

// [B, E] -> float32 [B, V] on the CPU, until the next call.
at::Tensor EngineCore::logits_of(const at::Tensor& hidden) {
  if (!logits_.defined() || logits_.size(0) < hidden.size(0)) {
    logits_ = at::empty({hidden.size(0), model_->vocab_size()}, at::kFloat);
  }
  return model_->logits(hidden, logits_).to(at::kCPU, at::kFloat);
}

void EngineCore::score(GenerationState& job, const at::Tensor& hidden) {
  try {
    job.score(hidden, [this](const at::Tensor& rows) { return logits_of(rows); });
  } catch (...) {
    job.fail(std::current_exception());
  }
}

// Those whose last token is done, each with its place among `jobs`: there is what says what follows
// it. Texts that waited for its prompt go on from there.
EngineCore::Ready EngineCore::find_ready(std::span<GenerationState* const> jobs) {
  Ready ready;
  const auto add = [&](GenerationState& job, size_t place) {
    if (job.has_failed()) {
      scheduler_.end(job, FinishReason::kError);
    } else if (job.is_only_scored()) {
      scheduler_.end(job, FinishReason::kLength);
    } else {
      ready.emplace_back(&job, static_cast<int64_t>(place));
    }
  };
  for (size_t i = 0; i < jobs.size(); ++i) {
    auto& job = *jobs[i];
    if (job.has_failed()) {
      scheduler_.end(job, FinishReason::kError);
      continue;
    }
    if (job.text().pending() > 0) continue;
    add(job, i);
    for (auto& follower : std::exchange(job.followers, {})) {
      follower->go_on_from(job);
      scheduler_.resume(follower);
      joined_.push_back(follower.get());
      add(*follower, i);
    }
  }
  return ready;
}

// The next tokens of those whose last token is done, and those after them that were guessed.
void EngineCore::sample(std::span<GenerationState* const> jobs,
                        const at::Tensor& hidden,
                        const Guesses& guesses) {
  const torch::NoGradGuard no_grad;
  const auto ready = find_ready(jobs);
  if (ready.empty()) return;
  std::vector<int64_t> rows;
  for (const auto& [job, place] : ready) rows.push_back(place);
  for (auto row = std::ssize(jobs); row < hidden.size(0); ++row) rows.push_back(row);
  const UseLock::Use use(model_->use_lock());
  const bool are_all = std::ranges::equal(rows, std::views::iota(int64_t{0}, hidden.size(0)));
  const auto logits = logits_of(
      are_all ? hidden
              : hidden.index_select(0, at::tensor(rows, hidden.options().dtype(at::kLong))));
  std::vector<SamplingRow> sampling;
  for (const auto& [job, place] : ready) sampling.push_back(job->row());
  auto row = std::ssize(ready);
  auto tokens = sample_rows(logits.narrow(0, 0, row), model_->logits_softcap(), sampling);
  for (size_t i = 0; i < ready.size(); ++i) {
    const auto& [job, place] = ready[i];
    const auto reason = job->take(std::move(tokens[i]));
    if (reason) scheduler_.end(*job, *reason);
    if (guesses.empty()) continue;
    const auto& guess = guesses[static_cast<size_t>(place)];
    if (!reason && !guess.empty()) {
      follow(*job, guess, logits.narrow(0, row, std::ssize(guess)));
    }
    row += std::ssize(guess);
  }
}

// Takes what follows the tokens of a guess, whose logits [guess, V] are there, as far as it is
// right.
void EngineCore::follow(GenerationState& job,
                        std::span<const int64_t> guess,
                        const at::Tensor& logits) {
  int64_t right = 0;
  for (const auto token : guess) {
    if (job.text().tokens().back() != token) break;
    const auto row = job.row();
    auto next = sample_rows(logits.narrow(0, right, 1), model_->logits_softcap(), {&row, 1});
    ++right;
    if (const auto reason = job.take(std::move(next.front()))) {
      scheduler_.end(job, *reason);
      break;
    }
  }
  job.accept(std::ssize(guess), right);
}

void EngineCore::drop(Job& job) { state_of(job).text().sequence.reset(); }

void EngineCore::finish(Job& job, FinishReason reason) {
  auto& state = state_of(job);
  state.draft.clear();
  // The next of those that waited for its prompt has them wait for its own.
  if (auto left = std::exchange(state.followers, {}); !left.empty()) {
    const auto next = left.front();
    next->followers.assign(left.begin() + 1, left.end());
    scheduler_.submit(next);
  }
  if (state.is_last) {
    state.text().sequence.reset();
  } else {
    idle_.push_back(state.session());
  }
  state.finish(reason);
}

// Prompts that are kept, then sessions that wait for their user: their texts go through the model
// again when they are continued.
bool EngineCore::evict() {
  if (prefix_cache_ && prefix_cache_->evict()) return true;
  while (!idle_.empty()) {
    const auto session = idle_.front().lock();
    idle_.pop_front();
    if (!session || session->is_running || !session->text.sequence) continue;
    session->text.sequence.reset();
    return true;
  }
  return false;
}

}  // namespace gemma
