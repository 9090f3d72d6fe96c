#include <chrono>
#include <iostream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include <fmt/format.h>

#include <gemma/cli/chat.h>
#include <gemma/cli/interrupt.h>
#include <gemma/cli/model_options.h>
#include <gemma/cli/output.h>
#include <gemma/cli/text_file.h>
#include <gemma/engine/engine.h>
#include <gemma/generate/chat_prompt.h>
#include <gemma/weights/stop_tokens.h>

namespace gemma::cli {
namespace {

constexpr std::string_view kQuotes = "\"\"\"";
constexpr std::string_view kHelp =
    "/help           this list\n"
    "/system TEXT    begins anew, with a text in front of the first message\n"
    "/reset          begins anew\n"
    "/undo           forgets the last message and its answer\n"
    "/regen          answers the last message again\n"
    "/stats          tokens so far, and the speed of the last answer\n"
    "/quit           ends the chat, as the end of the input does\n"
    "Several lines: between \"\"\" and \"\"\", or each but the last ends in \\.\n"
    "Ctrl-C ends an answer.\n";

struct ChatOptions {
  ModelOptions model;
  std::string system;
  double temperature = 1.0;
  double top_p = 0.95;
  int64_t top_k = 64;
  std::optional<uint64_t> seed;
  int64_t max_tokens = 0;  // 0: as many as fit.
};

// A message that was answered.
struct Turn {
  std::string text;
  int64_t begin;  // The session's tokens before it.
};

class Chat {
 public:
  Chat(const ChatOptions& options, const LanguageModel& model)
      : options_(options),
        prompt_(model->tokenizer()),
        engine_(model, {.kv_dtype = kv_dtype_of(options.model), .max_batch = 1}),
        session_(engine_.session()),
        system_(options.system) {
    rules_ = {.sampling = {.temperature = options.temperature,
                           .top_p = options.top_p,
                           .top_k = options.top_k},
              .max_tokens = options.max_tokens > 0 ? options.max_tokens
                                                   : model->config().max_position_embeddings,
              .stop_ids = stop_tokens(options.model.ckpt)};
    const auto ends = prompt_.stop_ids();
    rules_.stop_ids.insert(rules_.stop_ids.end(), ends.begin(), ends.end());
  }

  void answer(const std::string& text) {
    const Turn turn{text, std::ssize(session_.tokens())};
    session_.feed(turns_.empty() ? prompt_.first(text, system_) : prompt_.next(text));
    if (options_.seed) rules_.seed = *options_.seed + turns_.size();
    try {
      print_answer();
    } catch (const Interrupted&) {  // The program ends.
      throw;
    } catch (...) {
      session_.truncate(turn.begin);
      throw;
    }
    turns_.push_back(turn);
  }

  void reset() {
    turns_.clear();
    session_.truncate(0);
  }

  void set_system(const std::string& text) {
    system_ = text;
    reset();
  }

  // The message that is forgotten; none when there is none.
  std::optional<std::string> undo() {
    if (turns_.empty()) return std::nullopt;
    const auto turn = turns_.back();
    turns_.pop_back();
    session_.truncate(turn.begin);
    return turn.text;
  }

  void print_stats() const {
    note("{} tokens; the last answer has {}, {:.1f} tokens/s\n", session_.tokens().size(), tokens_,
         seconds_ > 0 ? static_cast<double>(tokens_) / seconds_ : 0.0);
  }

 private:
  using Clock = std::chrono::steady_clock;

  void print_answer() {
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

  const ChatOptions& options_;
  ChatPrompt prompt_;
  Engine engine_;
  Session session_;
  std::string system_;
  GenerateRules rules_;
  std::vector<Turn> turns_;
  int64_t tokens_ = 0;  // Of the last answer.
  double seconds_ = 0;
};

// A message of the user, of one line or several; none at the end of the input.
std::optional<std::string> read_message(bool is_terminal) {
  const auto read_line = [&](std::string_view prompt) -> std::optional<std::string> {
    if (is_terminal) write_note(prompt);
    std::string line;
    if (!std::getline(std::cin, line)) return std::nullopt;
    if (line.ends_with('\r')) line.pop_back();
    return checked_utf8("chat: a message", line);
  };
  auto message = read_line(">>> ");
  if (!message) {
    if (is_terminal) write_note("\n");
    return std::nullopt;
  }
  if (message->starts_with(kQuotes)) {
    message->erase(0, kQuotes.size());
    while (!message->ends_with(kQuotes)) {
      const auto line = read_line("... ");
      if (!line) return message;
      *message += "\n" + *line;
    }
    message->resize(message->size() - kQuotes.size());
    return message;
  }
  while (message->ends_with('\\')) {
    message->back() = '\n';
    const auto line = read_line("... ");
    if (!line) break;
    *message += *line;
  }
  return message;
}

// Does what a command says -> whether the chat goes on.
bool obey(Chat& chat, const std::string& command) {
  const auto name = command.substr(0, command.find(' '));
  const auto rest = name.size() < command.size() ? command.substr(name.size() + 1) : std::string();
  if (name == "/quit") return false;
  if (name == "/help") {
    write_note(kHelp);
  } else if (name == "/reset") {
    chat.reset();
  } else if (name == "/system") {
    chat.set_system(rest);
  } else if (name == "/stats") {
    chat.print_stats();
  } else if (name == "/undo") {
    if (!chat.undo()) note("there is no message to forget\n");
  } else if (name == "/regen") {
    if (const auto text = chat.undo()) {
      chat.answer(*text);
    } else {
      note("there is no message to answer again\n");
    }
  } else {
    note("{} is no command; /help lists them\n", name);
  }
  return true;
}

void chat(const ChatOptions& options) {
  if (numerics_of(options.model) != Numerics::kFast) {
    throw std::invalid_argument(
        "chat: exact numerics keep no text between turns; use --numerics fast on the CPU");
  }
  const auto checkpoint = open_checkpoint(options.model);
  const auto model = load_model(options.model, checkpoint);
  Chat conversation(options, model);
  const bool is_terminal = isatty(STDIN_FILENO) != 0;
  if (is_terminal) write_note("/help lists commands.\n");
  while (const auto message = read_message(is_terminal)) {
    try {
      if (message->starts_with('/')) {
        if (!obey(conversation, *message)) break;
      } else if (message->find_first_not_of(" \t\n") != std::string::npos) {
        conversation.answer(*message);
      }
    } catch (const std::invalid_argument& error) {  // No room is left, for one.
      if (!is_terminal) throw;
      note("{}\n", error.what());
    }
  }
}

}  // namespace

void add_chat(CLI::App& app) {
  const auto options = std::make_shared<ChatOptions>();
  auto* command = app.add_subcommand("chat", "Talk with an instruction-tuned model.");
  add_model_options(*command, options->model);
  command->add_option("--system", options->system, "Text in front of the first message");
  command->add_option("--temperature", options->temperature, "0 takes the likeliest token")
      ->capture_default_str();
  command->add_option(both("top_p"), options->top_p, "Probability that the candidates add up to")
      ->capture_default_str();
  command->add_option(both("top_k"), options->top_k, "Number of candidates; 0: all")
      ->capture_default_str();
  command->add_option("--seed", options->seed,
                      "Random seed of the first answer, one more for each answer after it; another "
                      "each time when omitted");
  command->add_option(both("max_tokens"), options->max_tokens, "Of an answer; 0: as many as fit")
      ->check(CLI::Range(0, 10'000'000))
      ->capture_default_str();
  command->callback([options] { chat(*options); });
}

}  // namespace gemma::cli
