#include <chrono>
#include <list>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <fmt/format.h>

#include <gemma/cli/batch.h>
#include <gemma/cli/batch_file.h>
#include <gemma/cli/interrupt.h>
#include <gemma/cli/output.h>
#include <gemma/cli/progress.h>
#include <gemma/cli/steering.h>

namespace gemma::cli {
namespace {

using Clock = std::chrono::steady_clock;

GenerateRules rules_of(const RunOptions& options) {
  return {.sampling = {.temperature = temperature_of(options).value_or(0.0),
                       .top_p = options.top_p,
                       .top_k = options.top_k},
          .seed = options.seed,
          .max_tokens = options.output_len,
          .prompt_lookup = options.guess.prompt_lookup};
}

std::vector<int64_t> tokens_of(const BatchLine& line, const EngineModel& model) {
  const auto* const text = std::get_if<std::string>(&line.prompt);
  if (text != nullptr) return model->tokenizer().encode(*text);
  return ChatPrompt(model->tokenizer()).encode(std::get<std::vector<ChatMessage>>(line.prompt));
}

// The texts of a file, continued together and written in their order.
class Batch {
 public:
  Batch(const RunOptions& options, const EngineModel& model, std::vector<BatchLine> lines)
      : options_(options),
        model_(model),
        lines_(std::move(lines)),
        engine_(model,
                {.kv_dtype = kv_dtype_of(options.model),
                 .max_batch = options.max_batch,
                 .draft = load_draft(options.guess, options.model),
                 .draft_tokens = options.guess.draft_tokens}) {
    const auto stops = stop_ids_of(model, options.model.ckpt);
    for (auto& line : lines_) {
      line.rules.stop_ids = stops;
      check_line(line);
    }
  }

  // Continues those that have no result yet.
  void run(BatchOutput& output) {
    const InterruptGuard guard;
    ProgressBar bar("Generating");
    next_ = output.size();
    while (output.size() < lines_.size()) {
      check_interrupt();
      start_some();
      // The first is waited for; the others have gone on meanwhile.
      double seconds = 0.05;
      for (auto text = running_.begin(); text != running_.end(); seconds = 0) {
        const auto current = text++;
        if (is_over(*current, seconds)) finish(current);
      }
      while (!results_.empty() && results_.begin()->first == output.size()) {
        output.append(results_.extract(results_.begin()).mapped());
      }
      bar(static_cast<int64_t>(output.size()), std::ssize(lines_));
    }
  }

  int64_t tokens() const { return tokens_; }

 private:
  struct Running {
    size_t index;
    Session session;
    std::optional<Generation> generation;
    std::string text;
    int64_t tokens = 0;
  };

  std::string place_of(const BatchLine& line) const {
    return fmt::format("{}: line {}", options_.prompts, line.number);
  }

  // What goes wrong is told with the line's number.
  template <typename Function>
  void at_line(const BatchLine& line, const Function& function) const {
    try {
      function();
    } catch (const std::exception& error) {
      throw std::runtime_error(fmt::format("{}: {}", place_of(line), error.what()));
    }
  }

  // Throws for what the engine would refuse later.
  void check_line(const BatchLine& line) const {
    check(line.rules.sampling, place_of(line).c_str(), model_->vocab_size());
    at_line(line, [&] {
      if (line.rules.max_tokens < 1) {
        throw std::invalid_argument(
            fmt::format("max_tokens is {}, but must be 1 or more", line.rules.max_tokens));
      }
      if (line.rules.prompt_lookup < 0) {
        throw std::invalid_argument(fmt::format("prompt_lookup is {}, but must be 0 or more tokens",
                                                line.rules.prompt_lookup));
      }
      const auto size = tokens_of(line, model_).size();
      if (std::cmp_less(size, model_->max_positions())) return;
      throw std::invalid_argument(
          fmt::format("the prompt has {} tokens, but must leave some of the model's {} positions",
                      size, model_->max_positions()));
    });
  }

  // As many as run together, and as many that wait to take their places.
  void start_some() {
    while (std::ssize(running_) < 2 * options_.max_batch && next_ < lines_.size()) {
      const auto& line = lines_[next_];
      auto& text = running_.emplace_back(next_++, engine_.session());
      at_line(line, [&] {
        text.session.feed(tokens_of(line, model_));
        text.generation = text.session.generate(line.rules);
      });
    }
  }

  // Takes the tokens that are there, and waits for the first that long.
  bool is_over(Running& text, double seconds) {
    bool waited = false;
    at_line(lines_[text.index], [&] {
      while (const auto token = text.generation->next(seconds, waited)) {
        text.text += token->text;
        ++text.tokens;
        seconds = 0;
      }
    });
    return !waited;
  }

  void finish(std::list<Running>::iterator text) {
    auto& result = results_[text->index];
    result["id"] = lines_[text->index].id;
    result["text"] = text->text + text->generation->rest();
    result["finish_reason"] = to_string(text->generation->finish_reason());
    result["prompt_tokens"] = text->generation->prompt_tokens();
    result["completion_tokens"] = text->tokens;
    tokens_ += text->tokens;
    running_.erase(text);
  }

  const RunOptions& options_;
  const EngineModel& model_;
  std::vector<BatchLine> lines_;
  Engine engine_;
  size_t next_ = 0;
  std::list<Running> running_;
  std::map<size_t, nlohmann::ordered_json> results_;  // Those that wait for an earlier one.
  int64_t tokens_ = 0;
};

}  // namespace

void run_batch(const RunOptions& options) {
  if (numerics_of(options.model) != Numerics::kFast) {
    throw std::invalid_argument(
        "--prompts needs fast numerics, which continue texts together; use --numerics fast on the "
        "CPU");
  }
  const auto checkpoint = open_checkpoint(options.model);
  check_guesses(options.guess, options.model, checkpoint);
  auto lines = read_batch(options.prompts, rules_of(options));
  BatchOutput output(options.out, lines);
  const auto done = output.size();
  if (done > 0) note("{} of {} are done already\n", done, lines.size());
  if (done == lines.size()) return;
  const auto model = load_model(options.model, checkpoint);
  add_steering(model, options.steer);
  Batch batch(options, model, std::move(lines));
  const auto start = Clock::now();
  batch.run(output);
  const auto seconds = std::chrono::duration<double>(Clock::now() - start).count();
  note("{} texts, {} tokens in {:.2f} s, {:.1f} tokens/s\n", output.size() - done, batch.tokens(),
       seconds, static_cast<double>(batch.tokens()) / seconds);
}

}  // namespace gemma::cli
