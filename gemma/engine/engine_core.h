#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include <gemma/engine/draft_model.h>
#include <gemma/engine/engine.h>
#include <gemma/engine/prefix_cache.h>
#include <gemma/engine/prompt_scores.h>
#include <gemma/engine/session_file.h>
#include <gemma/engine/stop_matcher.h>
#include <gemma/engine/text.h>
#include <gemma/text/grammar.h>
#include <gemma/text/stream_decoder.h>

// What is behind Engine, Session and Generation.
namespace gemma {

struct SessionState {
  explicit SessionState(std::shared_ptr<EngineCore> engine) : core(std::move(engine)) {}
  ~SessionState();
  SessionState(const SessionState&) = delete;
  SessionState& operator=(const SessionState&) = delete;

  std::shared_ptr<EngineCore> core;
  int64_t version = 0;                   // Of the model, when the text's sequence began.
  Text text;                             // While a generation runs, the engine's thread's own.
  std::atomic<bool> is_running = false;  // A generation has not ended.
  std::mutex mutex;
  std::weak_ptr<GenerationState> current;  // The last generation.
};

/// A generation, between the engine's thread that makes tokens and another that takes them.
class GenerationState : public Job {
 public:
  /// prompt_logprobs as Request's.
  GenerationState(std::shared_ptr<SessionState> session,
                  const GenerateRules& rules,
                  std::optional<int64_t> prompt_logprobs = std::nullopt);

  // For the engine's thread.
  int64_t pending_prompt() const override { return text().pending_prompt(); }
  bool pending_token() const override { return text().pending_token(); }
  const Text& text() const { return session_->text; }
  Text& text() { return session_->text; }
  /// A pass with the text comes.
  void begin();
  SamplingRow row();
  /// How many tokens can be guessed to follow the text now.
  int64_t room_for_guess() const;
  /// Those that followed where the text said the same before, at most `most`.
  std::vector<int64_t> look_up(int64_t most) const;
  /// Takes away what the grammar does not allow of a guess, and all that follows it.
  void cut_guess(std::vector<int64_t>& guess) const;
  /// Of a guess of so many tokens, the first `right` became part of the text.
  void accept(int64_t tokens, int64_t right);
  /// Takes a sampled token -> why the text ends with it, if it does.
  std::optional<FinishReason> take(SampledToken sampled);
  const std::shared_ptr<SessionState>& session() const { return session_; }
  void fail(std::exception_ptr error) { error_ = std::move(error); }
  bool has_failed() const { return error_ != nullptr; }
  void finish(FinishReason reason);

  /// Whether hidden states of the prompt are still to be scored.
  bool wants_scores() const { return scores_ && !scores_->is_complete(text()); }
  /// Scores those of the tokens that are done last, and tells when all are.
  void score(const at::Tensor& hidden, const PromptScores::LogitsOf& logits_of);
  /// Whether nothing is wanted of the text but its scores.
  bool is_only_scored() const { return rules_.max_tokens == 0; }
  /// Whether the other asks the same of the same prompt, whatever it makes of it.
  bool has_same_prompt(const GenerationState& other) const;
  /// `leader` has that prompt, all of which is done: this text goes on from there.
  void go_on_from(const GenerationState& leader);

  /// What the draft model keeps of the text.
  Draft draft;

  /// Texts with the same prompt, which wait for it.
  std::vector<std::shared_ptr<GenerationState>> followers;

  /// The prompt and each token, on the engine's thread.
  std::function<void(const std::vector<GeneratedToken>& tokens)> on_prompt;
  std::function<void(const GeneratedToken& token)> on_token;
  std::function<void(const Ending& ending)> on_end;
  /// The text is not continued again: what the model keeps of it goes when it ends.
  bool is_last = false;
  /// Somebody takes the tokens by next().
  bool has_reader = true;

  // For the other.
  std::optional<GeneratedToken> next(double seconds, bool& waited);
  std::vector<GeneratedToken> prompt() const;
  const std::string& rest() const { return rest_; }
  FinishReason reason() const { return reason_; }
  int64_t prompt_tokens() const { return prompt_tokens_; }
  int64_t cached_tokens() const { return std::max<int64_t>(0, cached_tokens_); }
  int64_t guessed_tokens() const { return guessed_tokens_; }
  int64_t accepted_tokens() const { return accepted_tokens_; }

 private:
  void see(int64_t token, bool answered);
  void tell_prompt();
  bool is_stop(int64_t token) const;
  bool grammar_ends_with(int64_t token);
  [[noreturn]] void explain(SampledToken::Failure failure) const;

  std::shared_ptr<SessionState> session_;
  GenerateRules rules_;
  at::Generator generator_;
  std::optional<GrammarState> grammar_;
  double grammar_seconds_ = 0;  // That it took of the thread's time.
  StreamDecoder decoder_;
  StopMatcher matcher_;
  std::optional<int64_t> prompt_logprobs_;
  std::shared_ptr<PromptScores> scores_;  // With prompt_logprobs.
  std::optional<GeneratedToken> stop_token_;
  int64_t prompt_tokens_, generated_ = 0;
  int64_t guess_most_;                       // Fewer after wrong guesses.
  std::atomic<int64_t> cached_tokens_ = -1;  // Not begun.
  std::atomic<int64_t> guessed_tokens_ = 0, accepted_tokens_ = 0;
  std::vector<SeenToken> seen_;  // For penalties.
  std::unordered_map<int64_t, size_t> place_in_seen_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<GeneratedToken> tokens_;  // Not yet taken.
  bool over_ = false;
  std::exception_ptr error_;
  std::string rest_;
  FinishReason reason_ = FinishReason::kStop;
};

/// The engine's thread, and the passes that its scheduler asks for.
class EngineCore : public PassRunner {
 public:
  EngineCore(EngineModel model, const EngineOptions& options);

  void start();
  /// Ends all generations and the thread.
  void stop();

  /// Throws std::logic_error after stop(), and in a process that was forked since start().
  void submit(std::shared_ptr<GenerationState> job);
  /// Runs it between passes, and waits for that. Afterwards, or in a callback, at once.
  void call(const std::function<void()>& body);
  /// The same without waiting.
  void post(std::function<void()> body);

  /// From any thread.
  Grammar compile(const GrammarSource& source);

  /// The clock of deadlines, in seconds.
  static double now();

  NamedTensors snapshot(const SessionState& session);
  void restore(const std::filesystem::path& path, SessionState& session);

  const EngineModelImpl& model() const { return *model_; }
  EngineStatus status();

  bool has_room(std::span<Job* const> jobs) const override;
  bool has_room(std::span<const PromptChunk> parts) const override;
  bool should_admit(const Job& job) override;
  void begin(Job& job) override;
  void decode(std::span<Job* const> jobs) override;
  void prompt(std::span<const PromptChunk> parts) override;
  int64_t part_of(const Job& job, int64_t most) const override;
  bool evict() override;
  void drop(Job& job) override;
  void finish(Job& job, FinishReason reason) override;

 private:
  void run();
  void run_posted();
  void run_pass();
  void forget_other_model();
  void use_draft(const EngineModel& model, const EngineOptions& options);
  using Guesses = std::vector<std::vector<int64_t>>;  // One a job.
  Guesses guess(std::span<GenerationState* const> jobs);
  void pass(std::span<GenerationState* const> jobs,
            const std::function<at::Tensor()>& run,
            const Guesses& guesses = {});
  using Ready = std::vector<std::pair<GenerationState*, int64_t>>;
  Ready find_ready(std::span<GenerationState* const> jobs);
  void sample(std::span<GenerationState* const> jobs,
              const at::Tensor& hidden,
              const Guesses& guesses);
  void follow(GenerationState& job, std::span<const int64_t> guess, const at::Tensor& logits);
  at::Tensor logits_of(const at::Tensor& hidden);
  void score(GenerationState& job, const at::Tensor& hidden);
  bool is_own_thread() const { return std::this_thread::get_id() == thread_.get_id(); }

  EngineModel model_;
  ModelRunner runner_;
  std::optional<PrefixCache> prefix_cache_;
  std::optional<DraftModel> draft_;
  int64_t draft_tokens_;
  int64_t version_ = 0;  // Of the model, as keys and values are kept of it.
  Scheduler scheduler_;
  std::deque<std::weak_ptr<SessionState>> idle_;  // The one that ended first comes first.
  std::vector<GenerationState*> joined_;          // The pass, as followers of its jobs.
  at::Tensor logits_;                             // Kept from pass to pass.
  int process_;
  std::mutex grammars_mutex_;
  std::optional<GrammarCompiler> grammars_;  // Since the first is asked for.

  std::mutex mutex_;
  std::condition_variable posted_or_stopped_;
  std::deque<std::function<void()>> posted_;
  bool busy_ = false;     // The scheduler has jobs.
  bool stopped_ = false;  // No thread takes what is posted.
  std::thread thread_;
};

}  // namespace gemma
