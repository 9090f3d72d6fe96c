#pragma once

#include <cstdint>
#include <vector>

namespace gemma {

/// Which of a number of blocks are free, and how many owners each of the others has. What is in
/// them is elsewhere: a block has a place in every layer of one kind.
class BlockPool {
 public:
  explicit BlockPool(int64_t blocks);

  int64_t size() const { return std::ssize(owners_); }
  int64_t free() const { return std::ssize(free_); }

  /// A block with one owner. Throws std::logic_error when none is free.
  int32_t take();

  /// One more owner of a block that has some.
  void share(int32_t block) { ++owners_[static_cast<size_t>(block)]; }

  /// One owner less; without any it is free.
  void release(int32_t block);

  bool is_shared(int32_t block) const { return owners_[static_cast<size_t>(block)] > 1; }

 private:
  std::vector<int32_t> owners_;  // Of each block.
  std::vector<int32_t> free_;    // The last is taken next: its memory was used before.
};

}  // namespace gemma
