#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <gemma/cli/model_options.h>
#include <gemma/engine/engine.h>
#include <gemma/generate/chat_prompt.h>
#include <gemma/image/image.h>

namespace gemma::cli {

/// The flags of gemma chat.
struct ChatOptions {
  ModelOptions model;
  std::string system;
  double temperature = 1.0;
  double top_p = 0.95;
  int64_t top_k = 64;
  std::optional<uint64_t> seed;
  int64_t max_tokens = 0;     // 0: as many as fit.
  int64_t prompt_lookup = 0;  // Tokens that are guessed at a time; 0: none.
};

/// What a user says.
struct UserMessage {
  std::string text;
  std::vector<Image> images = {};  // In front of the text.
};

/// A chat, whose answers go to standard output as they are made. What the model keeps of it stays
/// between turns.
class Conversation {
 public:
  /// Both have to outlive this. Throws std::invalid_argument for a model that knows no turns.
  Conversation(const ChatOptions& options, const EngineModel& model);

  /// Whether a message may have images.
  bool sees() const;

  /// Ctrl-C ends the answer. Throws std::invalid_argument when the message cannot be answered, and
  /// then is as it was before.
  void answer(const UserMessage& message);

  /// Begins anew.
  void reset();

  /// Begins anew, with a text in front of the first message.
  void set_system(const std::string& text);

  /// Forgets the last message and its answer -> the message; none when there is none.
  std::optional<UserMessage> undo();

  /// Writes the chat to a file. Throws std::runtime_error when it cannot be written.
  void save(const std::string& path) const { session_.save(path); }

  /// Goes on with the chat of a file; its messages cannot be undone. Throws std::runtime_error for
  /// a file that is none, or of another model; then the chat is as it was.
  void load(const std::string& path);

  /// Tokens and speed, to standard error.
  void print_stats() const;

 private:
  // A message that was answered.
  struct Turn {
    UserMessage message;
    int64_t begin;  // The session's tokens before it.
  };

  void feed(const UserMessage& message);
  void print_answer();

  const ChatOptions& options_;
  const EngineModel& model_;
  ChatPrompt prompt_;
  Engine engine_;
  Session session_;
  std::string system_;
  GenerateRules rules_;
  std::vector<Turn> turns_;
  int64_t tokens_ = 0;  // Of the last answer.
  double seconds_ = 0;
};

}  // namespace gemma::cli
