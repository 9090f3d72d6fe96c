#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <gemma/models/language_model.h>

namespace gemma {

struct EngineOptions {
  /// Of keys and values: float32 or bfloat16.
  torch::Dtype kv_dtype = torch::kFloat32;
  /// Most tokens of one sequence that go through the model together. A prompt gives the same result
  /// in chunks of any size, up to the order of summation. An image is never cut.
  int64_t chunk = 512;
  /// After each layer of each chunk. What it throws leaves the sequences without that chunk.
  LayerCallback on_layer = {};
};

/// The tokens that a model has seen, as keys and values: in a global layer all of them, in a local
/// layer those that its window still reaches. Belongs to the Engine that made it.
class Sequence {
 public:
  /// Tokens so far.
  int64_t length() const { return length_; }

  /// Memory of keys and values, in bytes.
  int64_t bytes() const;

 private:
  friend class Engine;
  std::vector<RingCache> caches_;  // One a layer.
  int64_t length_ = 0;
};

/// An image among the tokens of a feed. Its tokens see each other, wherever they stand.
struct ImageTokens {
  int64_t first;             // Which of the feed's tokens is its first.
  torch::Tensor embeddings;  // [U, E], in the place of those of the tokens' ids.
};

/// Runs a model over sequences, any number of them in a step, each with tokens of its own: one that
/// was just chosen, or a whole prompt. Sequences join and leave between steps.
class Engine {
 public:
  /// Tokens that a sequence is continued by.
  struct Feed {
    Sequence* sequence;
    std::span<const int64_t> tokens;           // At least one.
    std::span<const ImageTokens> images = {};  // In order, none over another.
  };

  /// The model keeps its numerics and weights. Throws std::invalid_argument for a kv_dtype or chunk
  /// that cannot be.
  explicit Engine(LanguageModel model, const EngineOptions& options = {});

  Sequence make_sequence() const;

  /// Appends the tokens of each feed to its sequence -> the hidden states of the last token of
  /// each, [feeds, E]. Throws std::invalid_argument when a sequence would exceed
  /// max_position_embeddings, or comes twice, and for an image that is larger than a chunk or not
  /// among the tokens; then no sequence has changed.
  torch::Tensor step(std::span<const Feed> feeds);

  /// Appends the tokens to the sequence -> the hidden states of all, [tokens, E]. Throws as `step`.
  torch::Tensor extend(Sequence& sequence,
                       std::span<const int64_t> tokens,
                       std::span<const ImageTokens> images = {});

  LanguageModel model() const { return model_; }

 private:
  void check(std::span<const Feed> feeds) const;
  void check_images(const Feed& feed) const;
  void reserve(Sequence& sequence, int64_t length) const;
  torch::Tensor forward(std::span<const Feed> feeds);
  torch::Tensor embed(const std::vector<int64_t>& ids, std::span<const Feed> feeds);

  LanguageModel model_;
  EngineOptions options_;
};

}  // namespace gemma
