#include <exception>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include <gemma/engine/engine_core.h>

namespace gemma {
namespace {

// Throws while the session's text is being continued.
void check_idle(const SessionState& state, const char* what) {
  if (!state.is_running) return;
  throw std::logic_error(fmt::format(
      "engine: {} while the text is being continued; take all tokens, or cancel it first", what));
}

std::shared_ptr<GenerationState> make_state(const std::shared_ptr<EngineCore>& core,
                                            Request request) {
  const auto session = std::make_shared<SessionState>(core);
  Session(session).feed(request.prompt, request.images);
  auto state = std::make_shared<GenerationState>(session, request.rules, request.prompt_logprobs);
  state->is_last = true;
  state->on_prompt = std::move(request.on_prompt);
  state->on_token = std::move(request.on_token);
  state->on_end = std::move(request.on_end);
  return state;
}

// Each prompt that is that of the text before waits for it.
void submit_all(EngineCore& core, const std::vector<std::shared_ptr<GenerationState>>& states) {
  std::vector<std::shared_ptr<GenerationState>> leaders;
  for (const auto& state : states) {
    if (!leaders.empty() && state->has_same_prompt(*leaders.back())) {
      leaders.back()->followers.push_back(state);
    } else {
      leaders.push_back(state);
    }
  }
  for (const auto& leader : leaders) core.submit(leader);
}

}  // namespace

SessionState::~SessionState() {
  if (!text.sequence) return;
  // Blocks are given back between passes. std::function copies what it calls.
  core->post([text = std::make_shared<Text>(std::move(text))] { text->sequence.reset(); });
}

Session::Session(std::shared_ptr<SessionState> state) : state_(std::move(state)) {}

void Session::feed(const std::string& text) {
  check_idle(*state_, "feed");
  const auto& tokenizer = state_->core->model().tokenizer();
  feed(tokenizer.encode(text, /*bos=*/state_->text.size() == 0));
}

void Session::feed(std::span<const int64_t> tokens, std::span<const ImageTokens> images) {
  check_idle(*state_, "feed");
  const auto vocab_size = state_->core->model().vocab_size();
  for (const auto token : tokens) {
    if (token < 0 || token >= vocab_size) {
      throw std::invalid_argument(fmt::format(
          "engine: token {} is not below the vocabulary's size, {}", token, vocab_size));
    }
  }
  state_->text.feed(tokens, images);
}

Generation Session::generate(const GenerateRules& rules) {
  check_idle(*state_, "generate");
  auto generation = std::make_shared<GenerationState>(state_, rules);
  {
    const std::lock_guard lock(state_->mutex);
    state_->current = generation;
  }
  state_->core->submit(generation);
  return Generation(std::move(generation));
}

Session Session::fork() const {
  check_idle(*state_, "fork");
  auto other = std::make_shared<SessionState>(state_->core);
  state_->core->call([&] { other->text = state_->text.fork(); });
  return Session(std::move(other));
}

void Session::truncate(int64_t size) {
  check_idle(*state_, "truncate");
  if (size < 0 || size > state_->text.size()) {
    throw std::invalid_argument(
        fmt::format("engine: truncate to {} tokens, but there are {}", size, state_->text.size()));
  }
  state_->core->call([&] { state_->text.truncate(size); });
}

void Session::save(const std::filesystem::path& path) const {
  check_idle(*state_, "save");
  write_session_file(path, state_->core->snapshot(*state_));
}

std::vector<int64_t> Session::tokens() const {
  std::vector<int64_t> tokens;
  state_->core->call([&] { tokens = state_->text.tokens(); });
  return tokens;
}

void Session::cancel() {
  const std::lock_guard lock(state_->mutex);
  if (const auto current = state_->current.lock()) current->cancel();
}

Engine::Engine(EngineModel model, const EngineOptions& options)
    : core_(std::make_shared<EngineCore>(std::move(model), options)) {
  core_->start();
}

Engine::~Engine() { core_->stop(); }

Session Engine::session() { return Session(std::make_shared<SessionState>(core_)); }

Session Engine::load_session(const std::filesystem::path& path) {
  auto state = std::make_shared<SessionState>(core_);
  core_->restore(path, *state);
  return Session(std::move(state));
}

std::vector<Answer> Engine::generate(std::vector<Request> requests) {
  std::vector<std::shared_ptr<GenerationState>> states;
  for (auto& request : requests) states.push_back(make_state(core_, std::move(request)));
  std::vector<Generation> generations(states.begin(), states.end());
  submit_all(*core_, states);
  std::vector<Answer> answers;
  for (auto& generation : generations) {
    auto& answer = answers.emplace_back();
    while (auto token = generation.next()) {
      answer.text += token->text;
      answer.tokens.push_back(*std::move(token));
    }
    answer.text += generation.rest();
    answer.prompt = states[answers.size() - 1]->prompt();
    answer.finish_reason = generation.finish_reason();
    answer.prompt_tokens = generation.prompt_tokens();
    answer.cached_tokens = generation.cached_tokens();
    answer.guessed_tokens = generation.guessed_tokens();
    answer.accepted_tokens = generation.accepted_tokens();
  }
  return answers;
}

std::vector<Generation> Engine::submit(std::vector<Request> requests) {
  std::vector<std::shared_ptr<GenerationState>> states;
  for (auto& request : requests) {
    states.push_back(make_state(core_, std::move(request)));
    states.back()->has_reader = false;
  }
  std::vector<Generation> generations(states.begin(), states.end());
  submit_all(*core_, states);
  return generations;
}

void Engine::prepare(const GrammarSource& grammar) { core_->compile(grammar); }

EngineStatus Engine::status() const { return core_->status(); }

}  // namespace gemma
