#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include <gemma/engine/engine.h>
#include <gemma/generate/chat_prompt.h>

namespace gemma::cli {

/// A text of a batch.
struct BatchLine {
  int64_t number;             ///< Of the line in its file, from 1.
  nlohmann::ordered_json id;  ///< What the line calls itself, a string or a number; else `number`.
  std::variant<std::string, std::vector<ChatMessage>> prompt;
  GenerateRules rules;
};

/// The lines of a file of JSON objects, or of standard input for "-": each with a prompt or
/// messages, and with fields that replace what `rules` says. Empty lines count, but are no texts.
/// Throws std::runtime_error, one line that names the file and the line, for what is none of that.
std::vector<BatchLine> read_batch(const std::string& path, const GenerateRules& rules);

/// The results of a batch, a line of JSON each, in the order of the texts. What is in the file
/// already stays; a line that was cut off by the end of an earlier run goes.
class BatchOutput {
 public:
  /// Throws std::runtime_error when the file cannot be written to, when another run writes to it,
  /// and when its lines are not results of the first of these texts.
  BatchOutput(const std::string& path, const std::vector<BatchLine>& lines);
  ~BatchOutput();
  BatchOutput(const BatchOutput&) = delete;
  BatchOutput& operator=(const BatchOutput&) = delete;

  /// How many texts have a result.
  size_t size() const { return size_; }

  /// The result of the next text. Throws std::runtime_error when it cannot be written.
  void append(const nlohmann::ordered_json& result);

 private:
  std::string read_whole_lines();

  std::string path_;
  int file_;
  size_t size_ = 0;
};

}  // namespace gemma::cli
