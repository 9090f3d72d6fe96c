#include <stdexcept>

#include <gemma/engine/block_pool.h>

namespace gemma {

BlockPool::BlockPool(int64_t blocks) : owners_(static_cast<size_t>(blocks)) {
  for (auto block = blocks - 1; block >= 0; --block) free_.push_back(static_cast<int32_t>(block));
}

int32_t BlockPool::take() {
  if (free_.empty()) throw std::logic_error("BlockPool: no block is free");
  const auto block = free_.back();
  free_.pop_back();
  owners_[static_cast<size_t>(block)] = 1;
  return block;
}

void BlockPool::release(int32_t block) {
  if (--owners_[static_cast<size_t>(block)] == 0) free_.push_back(block);
}

}  // namespace gemma
