#pragma once

#include <cstdio>
#include <memory>
#include <optional>
#include <string>

namespace gemma::cli {

/// Lines that are typed into a terminal, which can be edited and called back.
class LineEditor {
 public:
  /// None unless standard input is a terminal that can move its cursor, and standard error or
  /// standard output is one to show the line on. The history is in a file below XDG_STATE_HOME, or
  /// below ~/.local/state; where there is neither, it ends with the program.
  static std::unique_ptr<LineEditor> open();

  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  /// What becomes of a line.
  enum class Read { kLine, kAbandoned, kEnd };

  /// Shows the prompt, and waits for a line -> `line`, without the line break at its end. Ctrl-C
  /// abandons it, and Ctrl-D in an empty one is the end.
  Read read(const std::string& prompt, std::string& line);

  /// Adds a text, of one line or several, to the history.
  void remember(const std::string& text);

 private:
  struct Impl;
  explicit LineEditor(std::FILE* screen);

  std::unique_ptr<Impl> impl_;
};

}  // namespace gemma::cli
