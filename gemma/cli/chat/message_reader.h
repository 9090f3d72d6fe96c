#pragma once

#include <memory>
#include <optional>
#include <string>

#include <gemma/cli/chat/line_editor.h>

namespace gemma::cli {

/// The messages of a user, from standard input: of one line, or of several.
class MessageReader {
 public:
  MessageReader();

  bool is_terminal() const { return is_terminal_; }

  /// The next one; none at the end of the input. Throws std::invalid_argument for what is no UTF-8.
  std::optional<std::string> next();

 private:
  using Read = LineEditor::Read;

  Read read_line(const std::string& prompt, std::string& line);
  Read read_message(std::string& message);

  bool is_terminal_;
  std::unique_ptr<LineEditor> editor_;  // None without a terminal.
  std::string typed_;                   // The lines of the message as they were typed.
};

}  // namespace gemma::cli
