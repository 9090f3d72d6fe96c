#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <gemma/engine/block_pool.h>
#include <gemma/models/language_model.h>

namespace gemma {

/// How much memory for keys and values there is to be.
struct KVPlan {
  torch::Dtype dtype = torch::kFloat32;
  /// Sequences at a time.
  int64_t sequences = 1;
  /// Positions of each.
  int64_t positions = 0;
  /// Most tokens that go through the model together.
  int64_t chunk = 512;
  /// Without it, what the sequences need, but at most half of the machine's memory. With fewer
  /// bytes fewer sequences have room at a time, with more, longer ones do.
  std::optional<int64_t> bytes = std::nullopt;
};

/// The memory of keys and values of all layers, in blocks of positions, and who has which of it.
/// Layers that keep the same positions, all of a text or a window of it, share a pool: each of its
/// blocks has a place in all of them. Nothing is copied to grow, and memory is used as it is
/// written to.
class KVStore {
 public:
  /// Layers that keep the same positions.
  struct Kind {
    std::optional<int64_t> window;  // Positions that a token sees; none: all.
    std::vector<size_t> layers;
    int64_t block_bytes = 0;  // Of a block in all of these layers.
    BlockPool pool{0};

    /// The first position that the token at `position` sees.
    int64_t first_seen(int64_t position) const;
    /// Blocks of a sequence of so many positions, of which `chunk` come at once.
    int64_t blocks(int64_t positions, int64_t chunk) const;
  };

  /// Throws std::invalid_argument for a dtype other than float32 and bfloat16, and for bytes that
  /// are too few for a chunk of one sequence.
  KVStore(const LanguageModelImpl& model, const KVPlan& plan);

  std::vector<Kind>& kinds() { return kinds_; }
  const std::vector<Kind>& kinds() const { return kinds_; }

  /// One a layer.
  const std::vector<BlockCache>& caches() const { return caches_; }

  /// Makes `to` a copy of `from`, blocks of a kind.
  void copy(const Kind& kind, int32_t from, int32_t to);

  /// For each sequence in turn: 0, 1, 2, and so on.
  int64_t next_number() { return numbers_++; }

  /// Of all blocks, and of those that nobody has.
  int64_t bytes() const;
  int64_t bytes_free() const;

 private:
  void divide(const KVPlan& plan);

  std::vector<Kind> kinds_;
  std::vector<BlockCache> caches_;
  int64_t numbers_ = 0;
};

}  // namespace gemma
