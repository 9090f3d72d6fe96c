#include <algorithm>
#include <chrono>
#include <ctime>
#include <limits>
#include <stdexcept>

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <gemma/engine/engine_core.h>
#include <gemma/engine/prompt_lookup.h>

namespace gemma {
namespace {

uint64_t random_seed() {
  auto generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard lock(generator.mutex());
  return at::check_generator<at::CPUGeneratorImpl>(generator)->random64();
}

// The most thread time that the grammar of a text may use: kGrammarSeconds, and
// kGrammarSecondsPerToken for each token. A grammar that can say the same in many ways needs more
// with each token, and all other texts wait meanwhile.
constexpr double kGrammarSeconds = 1.0;
constexpr double kGrammarSecondsPerToken = 0.05;

// Adds the time of this thread, not of others, from its beginning to its end.
class ThreadTimer {
 public:
  explicit ThreadTimer(double& seconds) : seconds_(seconds) {}
  ~ThreadTimer() { seconds_ += now() - start_; }
  ThreadTimer(const ThreadTimer&) = delete;
  ThreadTimer& operator=(const ThreadTimer&) = delete;

 private:
  static double now() {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }

  double& seconds_;
  double start_ = now();
};

// All tokens that end the text.
std::vector<int64_t> stops_of(const EngineModelImpl& model, const GenerateRules& rules) {
  std::vector<int64_t> ids = {model.tokenizer().eos_id()};
  for (const auto id : rules.stop_ids) {
    if (id >= 0 && id < model.vocab_size()) ids.push_back(id);
  }
  return ids;
}

}  // namespace

GenerationState::GenerationState(std::shared_ptr<SessionState> session,
                                 const GenerateRules& rules,
                                 std::optional<int64_t> prompt_logprobs)
    : session_(std::move(session)),
      rules_(rules),
      generator_(at::detail::createCPUGenerator(rules.seed ? *rules.seed : random_seed())),
      decoder_(session_->core->model().tokenizer()),
      matcher_(rules.stop),
      prompt_logprobs_(prompt_logprobs),
      prompt_tokens_(session_->text.size()),
      guess_most_(rules.prompt_lookup) {
  priority = rules.priority;
  if (rules.timeout) deadline = EngineCore::now() + *rules.timeout;
  if (session_->text.size() == 0) {
    throw std::invalid_argument("engine: the text is empty; feed it a prompt first");
  }
  const auto most = session_->core->model().max_positions();
  const bool is_scored = prompt_logprobs.has_value();
  if (session_->text.size() >= most + (is_scored && rules.max_tokens == 0 ? 1 : 0)) {
    throw std::invalid_argument(
        fmt::format("engine: the text has {} tokens, which leaves none of the model's {} positions",
                    session_->text.size(), most));
  }
  if (rules.max_tokens < (is_scored ? 0 : 1)) {
    throw std::invalid_argument(fmt::format("engine: max_tokens is {}, but must be {} or more",
                                            rules.max_tokens, is_scored ? 0 : 1));
  }
  if (rules.prompt_lookup < 0) {
    throw std::invalid_argument(
        fmt::format("engine: prompt_lookup is {}, but must be a number of tokens, or 0 for no "
                    "guesses",
                    rules.prompt_lookup));
  }
  const auto vocab_size = session_->core->model().vocab_size();
  check(rules.sampling, "engine", vocab_size);
  if (rules.grammar) {
    grammar_.emplace(session_->core->compile(*rules.grammar),
                     stops_of(session_->core->model(), rules));
    grammar_->mask();
  }
  if (is_scored) {
    if (*prompt_logprobs < 0 || *prompt_logprobs > vocab_size) {
      throw std::invalid_argument(
          fmt::format("engine: prompt_logprobs is {}, but must be 0 to {} tokens of the vocabulary",
                      *prompt_logprobs, vocab_size));
    }
    scores_ = std::make_shared<PromptScores>(*prompt_logprobs, session_->core->model().tokenizer());
  }
  for (const auto token : session_->text.tokens()) see(token, /*answered=*/false);
}

void GenerationState::see(int64_t token, bool answered) {
  const auto [found, is_new] = place_in_seen_.emplace(token, seen_.size());
  if (is_new) seen_.push_back({token});
  if (answered) ++seen_[found->second].answered;
}

void GenerationState::begin() {
  int64_t none = -1;
  cached_tokens_.compare_exchange_strong(none, text().done());
}

void GenerationState::score(const at::Tensor& hidden, const PromptScores::LogitsOf& logits_of) {
  if (!scores_->add(text(), hidden, logits_of, session_->core->model().logits_softcap())) {
    explain(SampledToken::Failure::kNotFinite);
  }
  if (scores_->is_complete(text())) tell_prompt();
}

void GenerationState::tell_prompt() {
  try {
    if (on_prompt) on_prompt(scores_->tokens());
  } catch (...) {
    fail(std::current_exception());
  }
}

std::vector<GeneratedToken> GenerationState::prompt() const {
  return scores_ ? scores_->tokens() : std::vector<GeneratedToken>();
}

bool GenerationState::has_same_prompt(const GenerationState& other) const {
  const auto is_same = [](const ImageTokens& a, const ImageTokens& b) {
    return a.first == b.first && a.embeddings.is_same(b.embeddings);
  };
  return text().tokens() == other.text().tokens() && priority == other.priority &&
         prompt_logprobs_ == other.prompt_logprobs_ &&
         std::ranges::equal(text().images(), other.text().images(), is_same);
}

void GenerationState::go_on_from(const GenerationState& leader) {
  text().sequence = leader.text().sequence->fork();
  session_->version = leader.session_->version;
  begin();
  if (!scores_) return;
  scores_ = leader.scores_;
  tell_prompt();
}

SamplingRow GenerationState::row() {
  return {.rules = &rules_.sampling,
          .seen = seen_,
          .mask = grammar_ ? grammar_->mask() : std::span<const uint32_t>(),
          .generator = generator_};
}

int64_t GenerationState::room_for_guess() const {
  if (text().pending() != 1) return 0;
  const auto positions = session_->core->model().max_positions() - text().size();
  return std::min(positions, rules_.max_tokens - generated_) - 1;  // One comes without a guess.
}

std::vector<int64_t> GenerationState::look_up(int64_t most) const {
  const auto found =
      prompt_lookup(text().tokens(), std::min({most, guess_most_, room_for_guess()}));
  return {found.begin(), found.end()};
}

void GenerationState::cut_guess(std::vector<int64_t>& guess) const {
  if (!grammar_ || guess.empty()) return;
  auto ahead = *grammar_;
  const auto wrong =
      std::ranges::find_if_not(guess, [&](int64_t token) { return ahead.accept(token); });
  guess.erase(wrong, guess.end());
}

void GenerationState::accept(int64_t tokens, int64_t right) {
  ModelRunner::accept(*text().sequence, right);
  draft.accept(right);
  guessed_tokens_ += tokens;
  accepted_tokens_ += right;
  if (right == tokens) guess_most_ = std::min(2 * guess_most_, rules_.prompt_lookup);
  if (right == 0) guess_most_ = std::max<int64_t>(1, guess_most_ / 2);
}

bool GenerationState::is_stop(int64_t token) const {
  return token == session_->core->model().tokenizer().eos_id() ||
         std::ranges::find(rules_.stop_ids, token) != rules_.stop_ids.end();
}

// Whether the text cannot go on. Here, and not in row(), what goes wrong is of no other text.
bool GenerationState::grammar_ends_with(int64_t token) {
  if (!grammar_) return false;
  {
    const ThreadTimer timer(grammar_seconds_);
    grammar_->accept(token);
    if (grammar_->is_over()) return true;
    grammar_->mask();
  }
  const auto most = kGrammarSeconds + kGrammarSecondsPerToken * static_cast<double>(generated_);
  if (grammar_seconds_ <= most) return false;
  throw std::invalid_argument(fmt::format(
      "engine: the grammar took {:.1f} s for {} tokens; give one with fewer ways to say "
      "the same",
      grammar_seconds_, generated_));
}

void GenerationState::explain(SampledToken::Failure failure) const {
  using Failure = SampledToken::Failure;
  if (failure == Failure::kNothingAllowed && grammar_) {
    throw std::invalid_argument(
        "engine: no token is allowed: the grammar describes no text that goes on from here, or "
        "logit_bias forbids it");
  }
  if (failure == Failure::kNothingAllowed) {
    throw std::runtime_error("engine: no token is allowed; allow one in logit_bias or the mask");
  }
  if (failure == Failure::kNotFiniteByTemperature) {
    throw std::runtime_error(
        fmt::format("engine: the logits divided by the temperature, {}, are infinite; give 0 for "
                    "the likeliest token, or a larger temperature",
                    rules_.sampling.temperature));
  }
  throw std::runtime_error(
      "engine: the logits are NaN or infinite: the weights hold NaN or infinite numbers; download "
      "or convert the checkpoint again");
}

std::optional<FinishReason> GenerationState::take(SampledToken sampled) {
  if (sampled.failure != SampledToken::Failure::kNone) {
    try {
      explain(sampled.failure);
    } catch (...) {
      fail(std::current_exception());
    }
    return FinishReason::kError;
  }
  if (is_stop(sampled.token)) {
    stop_token_ = GeneratedToken{
        .id = sampled.token, .text = {}, .logprob = sampled.logprob, .top = std::move(sampled.top)};
    return FinishReason::kStop;
  }
  text().add(sampled.token);
  see(sampled.token, /*answered=*/true);
  ++generated_;
  GeneratedToken token{.id = sampled.token,
                       .text = matcher_.add(decoder_.add(sampled.token)),
                       .logprob = sampled.logprob,
                       .top = std::move(sampled.top)};
  bool is_over = false;
  try {
    is_over = grammar_ends_with(token.id);
    if (on_token) on_token(token);
  } catch (...) {
    fail(std::current_exception());
    return FinishReason::kError;
  }
  if (has_reader) {
    const std::lock_guard lock(mutex_);
    tokens_.push_back(std::move(token));
  }
  changed_.notify_all();
  if (matcher_.stopped() || is_over) return FinishReason::kStop;
  const auto most = session_->core->model().max_positions();
  if (generated_ == rules_.max_tokens || text().size() >= most) return FinishReason::kLength;
  return std::nullopt;
}

void GenerationState::finish(FinishReason reason) {
  session_->is_running = false;
  auto rest = matcher_.add(decoder_.finish());
  rest += matcher_.finish();
  {
    const std::lock_guard lock(mutex_);
    rest_ = std::move(rest);
    reason_ = reason;
    over_ = true;
  }
  changed_.notify_all();
  if (on_end) on_end({reason, rest_, prompt_tokens_, cached_tokens(), error_, stop_token_});
}

std::optional<GeneratedToken> GenerationState::next(double seconds, bool& waited) {
  std::unique_lock lock(mutex_);
  const auto is_ready = [this] { return over_ || !tokens_.empty(); };
  if (seconds == std::numeric_limits<double>::infinity()) {
    changed_.wait(lock, is_ready);
    waited = false;
  } else {
    waited = !changed_.wait_for(lock, std::chrono::duration<double>(seconds), is_ready);
  }
  if (!tokens_.empty()) {
    auto token = std::move(tokens_.front());
    tokens_.pop_front();
    return token;
  }
  if (over_ && error_) std::rethrow_exception(error_);
  return std::nullopt;
}

Generation::Generation(std::shared_ptr<GenerationState> state) : state_(std::move(state)) {}

Generation::~Generation() {
  if (state_) state_->cancel();
}

Generation::Generation(Generation&&) noexcept = default;

Generation& Generation::operator=(Generation&& other) noexcept {
  if (state_ && state_ != other.state_) state_->cancel();
  state_ = std::move(other.state_);
  return *this;
}

std::optional<GeneratedToken> Generation::next() {
  bool waited = false;
  return state_->next(std::numeric_limits<double>::infinity(), waited);
}

std::optional<GeneratedToken> Generation::next(double seconds, bool& waited) {
  return state_->next(seconds, waited);
}

const std::string& Generation::rest() const { return state_->rest(); }
FinishReason Generation::finish_reason() const { return state_->reason(); }
int64_t Generation::prompt_tokens() const { return state_->prompt_tokens(); }
int64_t Generation::cached_tokens() const { return state_->cached_tokens(); }
int64_t Generation::guessed_tokens() const { return state_->guessed_tokens(); }
int64_t Generation::accepted_tokens() const { return state_->accepted_tokens(); }
void Generation::cancel() { state_->cancel(); }

}  // namespace gemma
