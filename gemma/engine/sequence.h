#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <gemma/engine/state_store.h>

namespace gemma {

/// The tokens that a model has seen, as keys and values: in a global layer all of them, in a local
/// layer those that its window still reaches; in a recurrent layer, as the state after the last.
/// Numbers of blocks, and of a slot, in the memory of the ModelRunner that made it, which may be
/// gone by then. Of all sequences of an engine one thread at a time may
/// use any.
class Sequence {
 public:
  /// Blocks of a kind of layers; the first is that of the positions from 64 * first on.
  struct Table {
    std::vector<int32_t> blocks;
    int64_t first = 0;
  };

  explicit Sequence(std::shared_ptr<StateStore> store);
  /// A sequence of `length` tokens that are in these blocks and this slot, if layers keep states,
  /// which it shares: one table a kind.
  Sequence(std::shared_ptr<StateStore> store,
           std::vector<Table> tables,
           std::optional<int32_t> slot,
           int64_t length);
  ~Sequence();
  Sequence(Sequence&& other) noexcept = default;
  Sequence& operator=(Sequence&& other) noexcept;
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  /// Tokens so far.
  int64_t length() const { return length_; }

  /// How many there were before it in this memory, forks included.
  int64_t number() const { return number_; }

  /// Memory of keys, values and states, in bytes, what is shared included.
  int64_t bytes() const;

  /// Another sequence of the same tokens. They share memory until one of them is continued, when
  /// one block a layer is copied, at the most.
  Sequence fork() const;

  /// Whether truncate(length) can be: the windows of local layers have to be there still, and a
  /// state is that of all tokens.
  bool can_truncate(int64_t length) const;

  /// Forgets all but the first `length` tokens. Throws std::invalid_argument when there are not so
  /// many, or can_truncate says no; then nothing has changed.
  void truncate(int64_t length);

  /// The blocks of a kind of layers (StateStore::kinds).
  BlockTable table(size_t kind) const { return {tables_[kind].blocks, tables_[kind].first}; }

  /// Where the states of recurrent layers are; none before the first token, and in models without.
  std::optional<int32_t> slot() const { return slot_; }

 private:
  friend class ModelRunner;

  // Blocks that `tokens` more tokens need of a kind, copies of shared ones included.
  int64_t missing(size_t kind, int64_t tokens) const;
  // Likewise slots, of which a pass takes one: so one that fails leaves the state as it was.
  int64_t missing_slots() const;
  // After `reserve`.
  StateSlots step_slots() const { return {slot_.value_or(-1), next_slot_.value_or(-1)}; }
  // Takes blocks for `tokens` more tokens and a slot, and copies the block that is written to first
  // if it is shared. The pools must have as many free ones as `missing` says.
  void reserve(int64_t tokens);
  // These were written. Windows move on.
  void advance(int64_t tokens);
  void release();

  std::shared_ptr<StateStore> store_;
  std::vector<Table> tables_;         // One a kind.
  std::optional<int32_t> slot_;       // Of the state after the last token.
  std::optional<int32_t> next_slot_;  // Of that after the pass which `reserve` was for.
  int64_t length_ = 0;
  int64_t number_ = 0;
};

}  // namespace gemma
