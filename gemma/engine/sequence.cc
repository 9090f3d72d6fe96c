#include <algorithm>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include <gemma/engine/sequence.h>

namespace gemma {
Sequence::Sequence(std::shared_ptr<StateStore> store)
    : store_(std::move(store)), tables_(store_->kinds().size()), number_(store_->next_number()) {}

Sequence::Sequence(std::shared_ptr<StateStore> store,
                   std::vector<Table> tables,
                   std::optional<int32_t> slot,
                   int64_t length)
    : store_(std::move(store)),
      tables_(std::move(tables)),
      slot_(slot),
      length_(length),
      number_(store_->next_number()) {
  if (slot_) store_->slots().pool.share(*slot_);
  for (size_t i = 0; i < tables_.size(); ++i) {
    for (const auto block : tables_[i].blocks) store_->kinds()[i].pool.share(block);
  }
}

Sequence::~Sequence() { release(); }

Sequence& Sequence::operator=(Sequence&& other) noexcept {
  if (this == &other) return *this;
  release();
  store_ = std::move(other.store_);
  tables_ = std::move(other.tables_);
  slot_ = other.slot_;
  next_slot_ = other.next_slot_;
  length_ = other.length_;
  number_ = other.number_;
  return *this;
}

void Sequence::release() {
  if (!store_) return;  // Moved from.
  for (const auto& slot : {slot_, next_slot_}) {
    if (slot) store_->slots().pool.release(*slot);
  }
  for (size_t i = 0; i < tables_.size(); ++i) {
    for (const auto block : tables_[i].blocks) store_->kinds()[i].pool.release(block);
  }
}

int64_t Sequence::bytes() const {
  auto total = slot_ ? store_->slots().slot_bytes : 0;
  for (size_t i = 0; i < tables_.size(); ++i) {
    total += std::ssize(tables_[i].blocks) * store_->kinds()[i].block_bytes;
  }
  return total;
}

Sequence Sequence::fork() const {
  auto tables = tables_;
  for (auto& [blocks, first] : tables) {
    // Not those that a pass which failed had reserved.
    const auto count = BlockCache::blocks_for(length_) - first;
    if (count < std::ssize(blocks)) blocks.resize(static_cast<size_t>(count));
  }
  return {store_, std::move(tables), slot_, length_};
}

bool Sequence::can_truncate(int64_t length) const {
  if (slot_ && length != 0 && length != length_) return false;
  for (size_t i = 0; i < tables_.size(); ++i) {
    const auto first_kept = tables_[i].first * BlockCache::kPositions;
    if (store_->kinds()[i].first_seen(length) < first_kept) return false;
  }
  return true;
}

void Sequence::truncate(int64_t length) {
  if (length < 0 || length > length_) {
    throw std::invalid_argument(
        fmt::format("Sequence: truncate to {} tokens, but there are {}", length, length_));
  }
  if (!can_truncate(length)) {
    throw std::invalid_argument(
        fmt::format("Sequence: truncate to {} of {} tokens, but {}", length, length_,
                    slot_ ? "recurrent layers have the state after the last alone"
                          : "local layers no longer have their window"));
  }
  for (size_t i = 0; i < tables_.size(); ++i) {
    auto& [blocks, first] = tables_[i];
    const auto kept = BlockCache::blocks_for(length) - first;
    for (; std::ssize(blocks) > std::max<int64_t>(0, kept); blocks.pop_back()) {
      store_->kinds()[i].pool.release(blocks.back());
    }
  }
  if (length == 0 && slot_) store_->slots().pool.release(*std::exchange(slot_, std::nullopt));
  length_ = length;
}

int64_t Sequence::missing_slots() const { return store_->has_slots() && !next_slot_ ? 1 : 0; }

int64_t Sequence::missing(size_t kind, int64_t tokens) const {
  const auto& [blocks, first] = tables_[kind];
  const auto end = first + std::ssize(blocks);
  const auto wanted = BlockCache::blocks_for(length_ + tokens);
  const auto& pool = store_->kinds()[kind].pool;
  const auto written = length_ / BlockCache::kPositions;  // The block that is written to first.
  const bool copies = written < end && pool.is_shared(blocks[written - first]);
  return std::max<int64_t>(0, wanted - end) + (copies ? 1 : 0);
}

void Sequence::reserve(int64_t tokens) {
  if (missing_slots() > 0) next_slot_ = store_->slots().pool.take();
  for (size_t i = 0; i < tables_.size(); ++i) {
    auto& kind = store_->kinds()[i];
    auto& [blocks, first] = tables_[i];
    const auto written = length_ / BlockCache::kPositions - first;
    if (written < std::ssize(blocks) && kind.pool.is_shared(blocks[written])) {
      const auto own = kind.pool.take();
      store_->copy(kind, blocks[written], own);
      kind.pool.release(std::exchange(blocks[written], own));
    }
    const auto wanted = BlockCache::blocks_for(length_ + tokens);
    while (first + std::ssize(blocks) < wanted) blocks.push_back(kind.pool.take());
  }
}

void Sequence::advance(int64_t tokens) {
  length_ += tokens;
  if (next_slot_) {
    if (slot_) store_->slots().pool.release(*slot_);
    slot_ = std::exchange(next_slot_, std::nullopt);
  }
  for (size_t i = 0; i < tables_.size(); ++i) {
    auto& kind = store_->kinds()[i];
    auto& [blocks, first] = tables_[i];
    // The last token can be taken back, and the last whole block is where another text can go on.
    const auto next =
        std::min(length_ - 1, length_ / BlockCache::kPositions * BlockCache::kPositions);
    const auto oldest = kind.first_seen(next) / BlockCache::kPositions;
    const auto gone = std::min(oldest - first, std::ssize(blocks));
    if (gone <= 0) continue;
    for (int64_t b = 0; b < gone; ++b) kind.pool.release(blocks[b]);
    blocks.erase(blocks.begin(), blocks.begin() + gone);
    first += gone;
  }
}

}  // namespace gemma
