#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <vector>

#include <gemma/engine/sequence.h>
#include <gemma/models/engine_model.h>

namespace gemma {

struct RunnerOptions {
  /// Of keys and values: float32 or bfloat16.
  torch::Dtype kv_dtype = torch::kFloat32;
  /// Memory for keys and values, in bytes; without it, what `max_batch` sequences of `positions`
  /// need, but at most half of the machine's. It is used as it is written to.
  std::optional<int64_t> kv_memory = std::nullopt;
  /// Sequences at a time, when each is as long as `positions`; more when they are shorter.
  int64_t max_batch = 1;
  /// Without it, as many as the model has.
  std::optional<int64_t> positions = std::nullopt;
  /// Most tokens that go through the model together. An image is never cut.
  int64_t chunk = 512;
  /// After each layer of each pass. What it throws leaves the sequences without that pass.
  LayerCallback on_layer = {};
};

/// An image among the tokens of a feed. Its tokens see each other, wherever they stand.
struct ImageTokens {
  int64_t first;             // Which of the feed's tokens is its first.
  torch::Tensor embeddings;  // [U, E], in the place of those of the tokens' ids.

  int64_t end() const { return first + embeddings.size(0); }
};

/// Runs a model over sequences: prompts in chunks, and one more token of each of any number of
/// texts. Sequences join and leave between passes. A text has the same bits whatever other
/// sequences there are, however its prompt is cut, and for any number of threads.
class ModelRunner {
 public:
  /// Tokens that a sequence is continued by.
  struct Feed {
    Sequence* sequence;
    std::span<const int64_t> tokens;           // At least one.
    std::span<const ImageTokens> images = {};  // In order, none over another.
  };

  /// A token that a text is continued by.
  struct Next {
    Sequence* sequence;
    int64_t token;
  };

  /// Of a feed's next tokens, [T, E].
  using OnHidden = std::function<void(size_t feed, const torch::Tensor& hidden)>;

  /// The model keeps its numerics and weights. Throws std::invalid_argument for options that cannot
  /// be.
  explicit ModelRunner(EngineModel model, const RunnerOptions& options = {});

  Sequence make_sequence() const { return Sequence(store_); }

  /// Appends the tokens of prompts to their sequences -> the hidden states of the last token of
  /// each, [feeds, E]. Throws std::invalid_argument when a sequence would exceed
  /// max_position_embeddings, or comes twice, and for an image that is larger than a chunk or not
  /// among the tokens; then no sequence has changed. Throws OutOfMemory for keys and values that
  /// have no room; the sequences that were done before have changed then. on_hidden is told the
  /// hidden states of all tokens, a part of a feed at a time, when its sequence has them.
  torch::Tensor prompt(std::span<const Feed> feeds, const OnHidden& on_hidden = {});

  /// Appends the tokens to the sequence -> the hidden states of all, [tokens, E]. Throws as
  /// `prompt`.
  torch::Tensor extend(Sequence& sequence,
                       std::span<const int64_t> tokens,
                       std::span<const ImageTokens> images = {});

  /// Appends a token to each sequence -> its hidden states, [nexts, E]. Throws as `prompt`; then no
  /// sequence has changed.
  torch::Tensor decode(std::span<const Next> nexts);

  /// The hidden states of tokens that may follow sequences, [tokens, E]: the first token of each
  /// feed, then the others, with the bits that they have when `decode` appends them one by one. No
  /// sequence has changed. Throws as `decode`, and std::invalid_argument for several tokens where
  /// layers keep states.
  torch::Tensor try_out(std::span<const Feed> feeds);

  /// Appends tokens to the sequence: the first `count` of those that `try_out` had for it, or the
  /// next ones after these.
  static void accept(Sequence& sequence, int64_t count) { sequence.advance(count); }

  /// Tokens that a sequence is to take; null: one that is still to be made.
  struct Need {
    const Sequence* sequence;
    int64_t tokens;
  };
  /// Whether there are blocks and slots for all of them at once.
  bool has_room(std::span<const Need> needs) const;

  EngineModel model() const { return model_; }
  const RunnerOptions& options() const { return options_; }
  /// Where keys and values are, and how many blocks are free.
  const std::shared_ptr<StateStore>& store() const { return store_; }

 private:
  void check(std::span<const Feed> feeds) const;
  void check_images(const Feed& feed) const;
  void reserve(std::span<const Feed> feeds);
  torch::Tensor forward(std::span<const Feed> feeds, Pass pass);
  torch::Tensor embed(const std::vector<int64_t>& ids, std::span<const Feed> feeds);

  EngineModel model_;
  RunnerOptions options_;
  std::shared_ptr<StateStore> store_;
};

/// Keys and values have no room. One line says how much there is.
class OutOfMemory : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace gemma
