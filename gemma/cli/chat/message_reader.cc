#include <iostream>
#include <string_view>
#include <unistd.h>

#include <gemma/cli/chat/message_reader.h>
#include <gemma/cli/output.h>
#include <gemma/cli/text_file.h>

namespace gemma::cli {
namespace {

constexpr std::string_view kQuotes = "\"\"\"";

}  // namespace

MessageReader::MessageReader()
    : is_terminal_(::isatty(STDIN_FILENO) != 0), editor_(LineEditor::open()) {}

std::optional<std::string> MessageReader::next() {
  for (;;) {
    std::string message;
    typed_.clear();
    const auto line = read_message(message);
    if (line == Read::kEnd && message.empty()) {
      if (is_terminal_) write_note("\n");
      return std::nullopt;
    }
    if (line == Read::kAbandoned) continue;
    if (editor_ && typed_.find_first_not_of(" \t\n") != std::string::npos) {
      editor_->remember(typed_);
    }
    return message;
  }
}

LineEditor::Read MessageReader::read_line(const std::string& prompt, std::string& line) {
  if (editor_) {
    const auto read = editor_->read(prompt, line);
    if (read != Read::kLine) return read;
  } else {
    if (is_terminal_) write_note(prompt);
    if (!std::getline(std::cin, line)) return Read::kEnd;
    if (line.ends_with('\r')) line.pop_back();
  }
  typed_ += typed_.empty() ? line : "\n" + line;
  checked_utf8("chat: a message", line);
  return Read::kLine;
}

// What came before the end of the input is a message, too.
LineEditor::Read MessageReader::read_message(std::string& message) {
  auto read = read_line(">>> ", message);
  if (read != Read::kLine) return read;
  std::string line;
  if (message.starts_with(kQuotes)) {
    message.erase(0, kQuotes.size());
    while (!message.ends_with(kQuotes)) {
      read = read_line("... ", line);
      if (read != Read::kLine) return read;
      message += "\n" + line;
    }
    message.resize(message.size() - kQuotes.size());
    return read;
  }
  while (message.ends_with('\\')) {
    message.back() = '\n';
    read = read_line("... ", line);
    if (read != Read::kLine) return read;
    message += line;
  }
  return read;
}

}  // namespace gemma::cli
