#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <gemma/engine/model_runner.h>

namespace gemma {

/// A text as it grows: its tokens, which of them were generated, and how far it has gone through
/// the model. What has not is pending.
class Text {
 public:
  int64_t size() const { return std::ssize(tokens_); }
  const std::vector<int64_t>& tokens() const { return tokens_; }
  bool is_generated(int64_t index) const { return generated_[static_cast<size_t>(index)]; }

  /// Tokens of a prompt, with the images among them (counted from the first of the tokens).
  void feed(std::span<const int64_t> tokens, std::span<const ImageTokens> images = {});
  /// A token that was generated.
  void add(int64_t token);
  void truncate(int64_t size);
  /// Has a token pending, the last one if all are done: only what goes through the model tells what
  /// follows it.
  void need_pending();

  int64_t pending() const { return size() - done(); }
  /// Tokens before the first that was generated.
  int64_t prompt_size() const;
  /// Tokens of a prompt that are next; 0 when a generated one is, or nothing is pending.
  int64_t pending_prompt() const;
  bool pending_token() const { return pending() > 0 && is_generated(done()); }

  /// The largest number of pending prompt tokens, at most `most`, that cuts no image.
  int64_t part(int64_t most) const;
  /// The images among the next `count` pending tokens, counted from the first of these.
  std::vector<ImageTokens> images_of(int64_t count) const;
  /// All of them, by their first token, counted from the text's.
  const std::vector<ImageTokens>& images() const { return images_; }
  /// Whether a cut before this token cuts an image.
  bool is_inside_image(int64_t index) const;

  int64_t done() const { return sequence ? sequence->length() : 0; }

  /// What the model keeps of the tokens that are done; none before the first.
  std::optional<Sequence> sequence;

  /// Another text with the same tokens, which shares what the model keeps.
  Text fork() const;

 private:
  void undo(int64_t size);

  std::vector<int64_t> tokens_;
  std::vector<bool> generated_;
  std::vector<ImageTokens> images_;
};

}  // namespace gemma
