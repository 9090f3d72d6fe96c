#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <gemma/engine/model_runner.h>

namespace gemma {

/// What a draft model keeps of a text.
class Draft {
 public:
  /// Of the last guess, the first `right` tokens became part of the text.
  void accept(int64_t right);
  void clear();

 private:
  friend class DraftModel;
  std::optional<Sequence> sequence_;
  int64_t tried_ = 0;  // Tokens of the guess that have gone through the model.
};

/// A smaller model of the same vocabulary, which guesses what a larger one is going to say.
class DraftModel {
 public:
  /// Throws std::invalid_argument for a model with recurrent layers, and for options that cannot
  /// be.
  DraftModel(EngineModel model, const RunnerOptions& options);

  /// A text that a guess is wanted for: all of its tokens, and most tokens of the guess.
  struct Text {
    std::span<const int64_t> tokens;
    Draft* draft;
    int64_t most;
  };

  /// The likeliest tokens to follow each text. Empty for one that is longer than the model takes,
  /// and for all where keys and values have no room.
  std::vector<std::vector<int64_t>> guess(std::span<const Text> texts);

 private:
  bool has_room(std::span<const Text> texts) const;
  void catch_up(std::span<const Text> texts);
  void extend(std::span<const ModelRunner::Feed> feeds,
              std::span<std::vector<int64_t>* const> guesses);

  EngineModel model_;
  ModelRunner runner_;
  torch::Tensor logits_;  // Kept from pass to pass.
};

}  // namespace gemma
