#pragma once

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include <gemma/engine/block_pool.h>
#include <gemma/models/engine_model.h>

namespace gemma {

/// How much memory for what layers keep there is to be.
struct StatePlan {
  /// Of keys and values.
  torch::Dtype dtype = torch::kFloat32;
  /// Sequences at a time.
  int64_t sequences = 1;
  /// Positions of each.
  int64_t positions = 0;
  /// Most tokens that go through the model together.
  int64_t chunk = 512;
  /// Without it, what the sequences need, but at most half of the machine's memory. With fewer
  /// bytes fewer sequences have room at a time, with more, longer ones do, or more of them where
  /// layers keep no more of longer ones.
  std::optional<int64_t> bytes = std::nullopt;
};

/// The memory of what all layers keep of sequences, and who has which of it. Keys and values are in
/// blocks of positions: layers that keep the same positions, all of a text or a window of it, share
/// a pool, each of whose blocks has a place in all of them. The state of a recurrent layer is in a
/// slot, which has a place in all such layers. Nothing is copied to grow, and memory is used as it
/// is written to.
class StateStore {
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

  /// Layers that keep a state.
  struct Slots {
    std::vector<size_t> layers;  // None in most models.
    int64_t slot_bytes = 0;      // Of a slot in all of these layers.
    BlockPool pool{0};
  };

  /// Throws std::invalid_argument for a dtype other than float32 and bfloat16, and for bytes that
  /// are too few for a chunk of one sequence.
  StateStore(const EngineModelImpl& model, const StatePlan& plan);

  std::vector<Kind>& kinds() { return kinds_; }
  const std::vector<Kind>& kinds() const { return kinds_; }

  Slots& slots() { return slots_; }
  const Slots& slots() const { return slots_; }
  bool has_slots() const { return !slots_.layers.empty(); }

  /// One a layer, as it keeps keys and values or a state.
  const std::vector<std::variant<BlockCache, RecurrentCache>>& caches() const { return caches_; }
  const BlockCache& blocks_of(size_t layer) const { return std::get<BlockCache>(caches_[layer]); }
  const RecurrentCache& states_of(size_t layer) const {
    return std::get<RecurrentCache>(caches_[layer]);
  }

  /// Makes `to` a copy of `from`, blocks of a kind.
  void copy(const Kind& kind, int32_t from, int32_t to);

  /// For each sequence in turn: 0, 1, 2, and so on.
  int64_t next_number() { return numbers_++; }

  /// Of all blocks and slots, and of those that nobody has.
  int64_t bytes() const;
  int64_t bytes_free() const;

 private:
  void add(size_t layer, const KeysKept& keys, torch::Dtype dtype);
  void add(size_t layer, const StateKept& state);
  void divide(const StatePlan& plan);

  std::vector<Kind> kinds_;
  Slots slots_;
  std::vector<std::variant<BlockCache, RecurrentCache>> caches_;
  int64_t numbers_ = 0;
};

}  // namespace gemma
