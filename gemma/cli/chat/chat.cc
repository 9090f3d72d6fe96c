#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <gemma/cli/chat/chat.h>
#include <gemma/cli/chat/conversation.h>
#include <gemma/cli/chat/message_reader.h>
#include <gemma/cli/chat/text_editor.h>
#include <gemma/cli/output.h>
#include <gemma/cli/run_options.h>
#include <gemma/cli/text_file.h>

namespace gemma::cli {
namespace {

std::string without_blanks(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\n";
  const auto first = text.find_first_not_of(kBlanks);
  if (first == text.npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(kBlanks) + 1 - first));
}

// What is typed, and what it does.
class Chat {
 public:
  Chat(const ChatOptions& options, const EngineModel& model) : conversation_(options, model) {}

  // Answers messages until the end.
  void run() {
    if (reader_.is_terminal()) write_note("/help lists commands.\n");
    while (!over_) {
      try {
        const auto message = reader_.next();
        if (!message) break;
        if (message->starts_with('/')) {
          obey(*message);
        } else if (!without_blanks(*message).empty()) {
          answer(*message);
        }
      } catch (const std::invalid_argument& error) {  // No room is left, for one.
        explain(error);
      }
    }
  }

 private:
  struct Command {
    std::string_view name;
    std::string_view argument;
    std::string_view help;
    void (Chat::*run)(const std::string& argument);
  };

  // By a person it can be tried again.
  void explain(const std::exception& error) const {
    if (!reader_.is_terminal()) throw;
    note("{}\n", error.what());
  }

  void obey(const std::string& line) {
    const auto name = std::string_view(line).substr(0, line.find_first_of(" \n"));
    const auto argument = without_blanks(std::string_view(line).substr(name.size()));
    for (const auto& command : kCommands) {
      if (command.name != name) continue;
      try {
        (this->*command.run)(argument);
      } catch (const std::runtime_error& error) {  // A file that is not there, for one.
        explain(error);
      }
      return;
    }
    note("{} is no command; /help lists them\n", name);
  }

  void answer(const std::string& text) {
    auto message = std::exchange(prepared_, {});
    message.text += text;
    conversation_.answer(message);
  }

  void help(const std::string& /*argument*/) {
    for (const auto& [name, argument, text, _] : kCommands) {
      note("{:<16}{}\n", fmt::format("{} {}", name, argument), text);
    }
    write_note(
        "Several lines: between \"\"\" and \"\"\", or each but the last ends in \\.\n"
        "Ctrl-C ends an answer.\n");
  }

  void set_system(const std::string& text) { conversation_.set_system(text); }

  void reset(const std::string& /*argument*/) {
    prepared_ = {};
    conversation_.reset();
  }

  void undo(const std::string& /*argument*/) {
    if (!conversation_.undo()) note("there is no message to forget\n");
  }

  void regenerate(const std::string& /*argument*/) {
    if (const auto message = conversation_.undo()) {
      conversation_.answer(*message);
    } else {
      note("there is no message to answer again\n");
    }
  }

  void edit(const std::string& text) {
    if (!reader_.is_terminal()) throw std::runtime_error("/edit: standard input is no terminal");
    const auto edited = edit_text(text);
    if (without_blanks(edited).empty()) {
      note("the text is empty, so nothing is sent\n");
      return;
    }
    note("{}\n", edited);
    answer(edited);
  }

  void read(const std::string& path) {
    if (path.empty()) throw std::runtime_error("/read: names no file");
    auto text = read_text_file("/read", path, /*or_input=*/false);
    while (text.ends_with('\n')) text.pop_back();
    prepared_.text += text + "\n\n";
    note("{} comes before the next message\n", path);
  }

  void show_image(const std::string& path) {
    if (!conversation_.sees()) {
      throw std::runtime_error("/image: this model reads text only; 4b, 12b and 27b_v3 see images");
    }
    prepared_.images.push_back(read_image(path));
    note("{} comes before the next message\n", path);
  }

  void save(const std::string& path) {
    if (path.empty()) throw std::runtime_error("/save: names no file");
    conversation_.save(path);
  }

  void load(const std::string& path) {
    conversation_.load(path);
    prepared_ = {};
    note("the chat goes on where {} ends\n", path);
  }

  void stats(const std::string& /*argument*/) { conversation_.print_stats(); }
  void quit(const std::string& /*argument*/) { over_ = true; }

  static const std::array<Command, 12> kCommands;

  Conversation conversation_;
  MessageReader reader_;
  UserMessage prepared_;  // What comes before the next message.
  bool over_ = false;
};

constexpr std::array<Chat::Command, 12> Chat::kCommands = {{
    {"/help", "", "this list", &Chat::help},
    {"/system", "TEXT", "begins anew, with a text in front of the first message",
     &Chat::set_system},
    {"/reset", "", "begins anew", &Chat::reset},
    {"/undo", "", "forgets the last message and its answer", &Chat::undo},
    {"/regen", "", "answers the last message again", &Chat::regenerate},
    {"/edit", "TEXT", "opens an editor, and sends what is saved", &Chat::edit},
    {"/read", "FILE", "puts the text of a file before the next message", &Chat::read},
    {"/image", "FILE", "shows a picture before the next message", &Chat::show_image},
    {"/save", "FILE", "writes the chat to a file", &Chat::save},
    {"/load", "FILE", "goes on with the chat of a file", &Chat::load},
    {"/stats", "", "tokens so far, and the speed of the last answer", &Chat::stats},
    {"/quit", "", "ends the chat, as the end of the input does", &Chat::quit},
}};

void chat(const ChatOptions& options) {
  if (numerics_of(options.model) != Numerics::kFast) {
    throw std::invalid_argument(
        "chat: exact numerics keep no text between turns; use --numerics fast on the CPU");
  }
  const auto checkpoint = open_checkpoint(options.model);
  check_prompt_lookup(options.prompt_lookup, options.model, checkpoint);
  const auto model = load_model(options.model, checkpoint);
  Chat(options, model).run();
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
  add_prompt_lookup(*command, options->prompt_lookup);
  command->callback([options] {
    options->model.takes_recurrentgemma = true;
    chat(*options);
  });
}

}  // namespace gemma::cli
