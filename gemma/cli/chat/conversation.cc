#include <algorithm>
#include <chrono>
#include <utility>

#include <gemma/cli/chat/conversation.h>
#include <gemma/cli/interrupt.h>
#include <gemma/cli/output.h>
#include <gemma/generate/multimodal_lm.h>
#include <gemma/weights/stop_tokens.h>

namespace gemma::cli {

Conversation::Conversation(const ChatOptions& options, const EngineModel& model)
    : options_(options),
      model_(model),
      prompt_(model->tokenizer()),
      engine_(model, {.kv_dtype = kv_dtype_of(options.model), .max_batch = 1}),
      session_(engine_.session()),
      system_(options.system) {
  rules_ = {.sampling = {.temperature = options.temperature,
                         .top_p = options.top_p,
                         .top_k = options.top_k},
            .max_tokens = options.max_tokens > 0 ? options.max_tokens : model->max_positions(),
            .prompt_lookup = options.prompt_lookup,
            .stop_ids = stop_tokens(options.model.ckpt)};
  const auto ends = prompt_.stop_ids();
  rules_.stop_ids.insert(rules_.stop_ids.end(), ends.begin(), ends.end());
}

void Conversation::answer(const UserMessage& message) {
  const auto begin = std::ssize(session_.tokens());
  try {
    feed(message);
    if (options_.seed) rules_.seed = *options_.seed + turns_.size();
    print_answer();
  } catch (const Interrupted&) {  // The program ends.
    throw;
  } catch (...) {
    session_.truncate(begin);
    throw;
  }
  turns_.push_back({message, begin});
}

void Conversation::reset() {
  turns_.clear();
  session_.truncate(0);
}

void Conversation::set_system(const std::string& text) {
  system_ = text;
  reset();
}

std::optional<UserMessage> Conversation::undo() {
  if (turns_.empty()) return std::nullopt;
  auto turn = std::move(turns_.back());
  turns_.pop_back();
  session_.truncate(turn.begin);
  return std::move(turn.message);
}

void Conversation::print_stats() const {
  note("{} tokens; the last answer has {}, {:.1f} tokens/s\n", session_.tokens().size(), tokens_,
       seconds_ > 0 ? static_cast<double>(tokens_) / seconds_ : 0.0);
}

bool Conversation::sees() const {
  return dynamic_cast<const Gemma3ForMultimodalLMImpl*>(model_.ptr().get()) != nullptr;
}

void Conversation::load(const std::string& path) {
  session_ = engine_.load_session(path);
  turns_.clear();
}

void Conversation::feed(const UserMessage& message) {
  PromptTokens pictures;
  if (!message.images.empty()) {
    auto& model = dynamic_cast<Gemma3ForMultimodalLMImpl&>(*model_.ptr());
    pictures = model.prompt_tokens({message.images.begin(), message.images.end()}, /*bos=*/false);
  }
  const auto ids = session_.tokens().empty() ? prompt_.first(message.text, system_, pictures.ids)
                                             : prompt_.next(message.text, pictures.ids);
  const auto begin = std::ranges::search(ids, pictures.ids).begin() - ids.begin();
  for (auto& image : pictures.images) image.first += begin;
  session_.feed(ids, pictures.images);
}

void Conversation::print_answer() {
  using Clock = std::chrono::steady_clock;
  const InterruptGuard guard;
  auto generation = session_.generate(rules_);
  tokens_ = 0;
  auto start = Clock::now();
  for (bool over = false; !over;) {
    bool waited = false;
    const auto token = generation.next(/*seconds=*/0.1, waited);
    if (take_interrupt()) generation.cancel();
    if (token) {
      if (tokens_++ == 0) start = Clock::now();
      write_output(token->text);
      flush_output();
    }
    over = !token && !waited;
  }
  seconds_ = std::chrono::duration<double>(Clock::now() - start).count();
  write_output(generation.rest() + "\n");
  flush_output();
  if (generation.finish_reason() == FinishReason::kCancelled) note("(ended)\n");
  if (generation.finish_reason() == FinishReason::kLength) {
    note("(ended: {} tokens; /reset begins anew)\n", session_.tokens().size());
  }
}

}  // namespace gemma::cli
