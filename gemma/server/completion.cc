#include <algorithm>
#include <cmath>
#include <exception>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include <gemma/server/completion.h>
#include <gemma/server/prompts.h>
#include <gemma/server/sse.h>

namespace gemma::server {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string message_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& what) {
    const std::string text = what.what();
    return text.substr(0, text.find('\n'));  // LibTorch adds a backtrace below.
  }
}

}  // namespace

void Completion::start(ServedModel& model,
                       CompletionContext& context,
                       CompletionRequest request,
                       std::shared_ptr<AnswerForm> form,
                       std::shared_ptr<HttpReply> reply) {
  const auto completion = std::make_shared<Completion>(model, context, std::move(request),
                                                       std::move(form), std::move(reply));
  completion->prepare();
  completion->take_places();
  completion->begin_stream();
  completion->submit_all();
}

Completion::Completion(ServedModel& model,
                       CompletionContext& context,
                       CompletionRequest request,
                       std::shared_ptr<AnswerForm> form,
                       std::shared_ptr<HttpReply> reply)
    : model_(model),
      context_(context),
      request_(std::move(request)),
      form_(std::move(form)),
      reply_(std::move(reply)) {}

// The texts, and what each has before it is continued.
void Completion::prepare() {
  auto [prompts, images, stop_ids] = tokens_of(request_, model_);
  images_ = std::move(images);
  stop_ids_ = std::move(stop_ids);
  for (size_t p = 0; p < prompts.size(); ++p) {
    cost_.prompt_tokens += std::ssize(prompts[p]);
    std::string echo;
    bool hides_bos = false;
    if (request_.echo) {
      const auto* text = std::get_if<std::string>(&request_.prompts[p]);
      const auto* tokens = std::get_if<std::vector<int64_t>>(&request_.prompts[p]);
      echo = text != nullptr ? *text : decode(prompts[p]);
      hides_bos = tokens != nullptr && tokens->size() < prompts[p].size();
    }
    for (int64_t i = 0; i < request_.n; ++i) {
      choices_.push_back(
          {.prompt = prompts[p], .text = echo, .tokens = {}, .hides_bos = hides_bos});
    }
  }
}

// A vocabulary may be larger than its tokenizer's.
std::string Completion::decode(const std::vector<int64_t>& tokens) const {
  try {
    return model_.tokenizer().decode(tokens);
  } catch (const std::out_of_range& error) {
    throw ApiError::bad_field("prompt", error.what());
  }
}

// Of texts that run and wait.
void Completion::take_places() {
  const auto wanted = std::ssize(choices_);
  if (wanted > context_.max_texts) {
    throw ApiError::bad_field("n",
                              fmt::format("the request asks for {} texts, but {} are most at a "
                                          "time; send several requests",
                                          wanted, context_.max_texts));
  }
  if (context_.texts.fetch_add(wanted) + wanted <= context_.max_texts) return;
  context_.texts -= wanted;
  const auto seconds = std::clamp(context_.metrics.text_seconds(), 1.0, 60.0);
  throw ApiError(429, "the queue is full; try again later", "queue_full")
      .retry_after(static_cast<int>(std::ceil(seconds)));
}

void Completion::begin_stream() {
  const auto reply = reply_;  // on_gone() may take the other.
  if (request_.stream) {
    reply->begin({.content_type = std::string(kSseType)}, std::string(kSseComment));
    for (size_t i = 0; i < choices_.size(); ++i) {
      auto begin = form_->begin(static_cast<int64_t>(i));
      if (!begin.empty()) reply->write(std::move(begin));
      if (!choices_[i].text.empty() && !wants_scores()) send_part(i);
    }
  }
  reply->on_gone([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->on_gone();
  });
}

Request Completion::request_for(size_t index) {
  auto& choice = choices_[index];
  Request request{.prompt = std::move(choice.prompt), .images = images_, .rules = request_.rules};
  auto& rules = request.rules;
  const auto room = model_.max_positions() - std::ssize(request.prompt);
  rules.max_tokens = std::min(request_.max_tokens.value_or(room), room);
  rules.stop_ids.insert(rules.stop_ids.end(), stop_ids_.begin(), stop_ids_.end());
  if (rules.seed) *rules.seed += index % static_cast<size_t>(request_.n);
  rules.timeout = context_.timeout;
  rules.prompt_lookup = context_.prompt_lookup;
  const auto self = shared_from_this();
  if (wants_scores()) {
    request.prompt_logprobs = rules.sampling.logprobs;
    request.on_prompt = [self, index](const std::vector<GeneratedToken>& tokens) {
      self->on_prompt(index, tokens);
    };
  }
  request.on_token = [self, index](const GeneratedToken& token) { self->on_token(index, token); };
  request.on_end = [self, index](const Ending& ending) { self->on_end(index, ending); };
  return request;
}

// A text may end before its handle is here.
void Completion::submit_all() {
  if (request_.max_tokens == 0 && !wants_scores()) return end_unasked();
  std::vector<std::shared_ptr<void>> handles;
  try {
    if (is_over()) return give_up(ApiError::internal());
    std::vector<Request> requests;
    for (size_t i = 0; i < choices_.size(); ++i) requests.push_back(request_for(i));
    handles = model_.submit(std::move(requests));
  } catch (const std::invalid_argument& error) {
    return give_up(ApiError(400, error.what(), "invalid_value"));
  } catch (const std::exception&) {
    context_.log(fmt::format("{}: {}", form_->id(), message_of(std::current_exception())));
    return give_up(ApiError::internal());
  }
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (reply_ && !choices_[i].finish_reason) choices_[i].handle = std::move(handles[i]);
  }
}

// Nothing is asked of the model.
void Completion::end_unasked() {
  for (size_t i = 0; i < choices_.size(); ++i) {
    on_end(i, {.reason = FinishReason::kLength,
               .rest = {},
               .prompt_tokens = std::ssize(choices_[i].prompt),
               .cached_tokens = 0,
               .error = nullptr});
  }
}

bool Completion::is_over() {
  const std::lock_guard lock(mutex_);
  return reply_ == nullptr;
}

// No text was submitted.
void Completion::give_up(const ApiError& error) {
  context_.texts -= std::ssize(choices_);
  const std::lock_guard lock(mutex_);
  fail(error);
}

void Completion::on_prompt(size_t index, const std::vector<GeneratedToken>& tokens) {
  const std::lock_guard lock(mutex_);
  auto& choice = choices_[index];
  choice.tokens.assign(tokens.begin() + (choice.hides_bos ? 1 : 0), tokens.end());
  if (reply_ && request_.stream) send_part(index);
}

void Completion::on_token(size_t index, const GeneratedToken& token) {
  const std::lock_guard lock(mutex_);
  auto& choice = choices_[index];
  const auto now = Clock::now();
  if (choice.last) {
    context_.metrics.add_between_tokens(std::chrono::duration<double>(now - *choice.last).count());
  } else {
    context_.metrics.add_first_token(seconds_since(start_));
  }
  choice.last = now;
  ++choice.generated;
  choice.text += token.text;
  if (wants_logprobs()) choice.tokens.push_back(token);
  if (reply_ && request_.stream && !(choice.text.empty() && choice.tokens.empty())) {
    send_part(index);
  }
}

void Completion::on_end(size_t index, const Ending& ending) {
  const std::lock_guard lock(mutex_);
  count_end(index, ending);
  auto& choice = choices_[index];
  choice.text += ending.rest;
  // Who counts on a token behind those of a prompt, as lm-eval does, finds one.
  if (wants_scores() && ending.stop_token) choice.tokens.push_back(*ending.stop_token);
  choice.finish_reason = ending.reason;
  choice.handle.reset();
  if (!reply_) return;
  switch (ending.reason) {
    case FinishReason::kError:
      context_.log(fmt::format("{}: {}", form_->id(), message_of(ending.error)));
      return fail(ApiError::internal());
    case FinishReason::kDeadline:
      return fail(
          ApiError(503, "the answer took longer than the server allows; ask for less", "timeout")
              .useless_again());
    case FinishReason::kCancelled:
      return fail(ApiError(503, "the server is shutting down", "shutting_down"));
    case FinishReason::kStop:
    case FinishReason::kLength:
      break;
  }
  if (request_.stream) send_part(index);
  if (++ended_ == choices_.size()) finish();
}

// The texts of a prompt share it.
void Completion::count_end(size_t index, const Ending& ending) {
  --context_.texts;
  const auto& choice = choices_[index];
  context_.metrics.add_text(ending.reason, choice.generated, seconds_since(start_));
  cost_.completion_tokens += choice.generated;
  if (index % static_cast<size_t>(request_.n) == 0) {
    cost_.cached_tokens += ending.cached_tokens;
    context_.metrics.add_prompt(ending.prompt_tokens, ending.cached_tokens);
  }
  if (reply_) reply_->set_cost(cost_);
}

ChoicePart Completion::part_of(size_t index) const {
  const auto& choice = choices_[index];
  ChoicePart part{
      .index = static_cast<int64_t>(index), .text = choice.text, .offset = choice.offset};
  if (wants_logprobs()) part.tokens = choice.tokens;
  return part;
}

// A reason to end comes by itself.
void Completion::send_part(size_t index) {
  auto& choice = choices_[index];
  if (!choice.text.empty() || !choice.tokens.empty()) {
    reply_->write(form_->part(part_of(index)));
    choice.offset += count_characters(choice.tokens, model_.tokenizer());
    choice.text.clear();
    choice.tokens.clear();
  }
  if (!choice.finish_reason) return;
  reply_->write(form_->part(
      {.index = static_cast<int64_t>(index), .text = {}, .finish_reason = choice.finish_reason}));
}

void Completion::finish() {
  const auto reply = std::exchange(reply_, nullptr);
  if (!request_.stream) {
    std::vector<ChoicePart> parts;
    for (size_t i = 0; i < choices_.size(); ++i) {
      parts.push_back(part_of(i));
      parts.back().finish_reason = choices_[i].finish_reason;
    }
    reply->send({.body = form_->whole(parts, cost_)});
    return;
  }
  reply->write(form_->end(cost_));
  reply->end();
}

// Nobody is told where the client has gone.
void Completion::fail(const ApiError& error) {
  const auto reply = std::exchange(reply_, nullptr);
  end_others();
  if (!reply) return;
  if (!request_.stream) return reply->send(error.response());
  reply->write(form_->error(error));
  reply->end();
}

void Completion::end_others() {
  for (auto& choice : choices_) choice.handle.reset();
}

void Completion::on_gone() {
  const std::lock_guard lock(mutex_);
  reply_.reset();
  end_others();
}

}  // namespace gemma::server
