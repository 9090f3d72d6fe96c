#include <algorithm>
#include <span>
#include <utility>

#include <ATen/ATen.h>

#include <gemma/engine/prefix_cache.h>

namespace gemma {
namespace {

constexpr int32_t kNoBlock = -1;  // Its window has passed.
constexpr int64_t kTokensPerBorder = 2048;

}  // namespace

PrefixCache::PrefixCache(std::shared_ptr<StateStore> store) : store_(std::move(store)) {}

PrefixCache::~PrefixCache() { clear(); }

// The number of an image: the same for the same embeddings.
int64_t PrefixCache::number_of(const at::Tensor& image) {
  for (const auto& [number, known] : images_) {
    if (known.is_same(image) || at::equal(known, image)) return number;
  }
  forget_images();
  images_.emplace(--images_numbered_, image);
  return images_numbered_;
}

// Those that no node and no text has.
void PrefixCache::forget_images() {
  std::erase_if(images_, [](const auto& image) { return image.second.use_count() == 1; });
}

// Of the whole blocks of the first `tokens` tokens.
std::vector<PrefixCache::Ids> PrefixCache::ids_of(const Text& text, int64_t tokens) {
  std::vector<Ids> ids(static_cast<size_t>(tokens / BlockCache::kPositions));
  const auto at = [&](int64_t index) -> int64_t& {
    return ids[static_cast<size_t>(index / BlockCache::kPositions)]
              [static_cast<size_t>(index % BlockCache::kPositions)];
  };
  const auto end = std::ssize(ids) * BlockCache::kPositions;
  for (int64_t i = 0; i < end; ++i) at(i) = text.tokens()[static_cast<size_t>(i)];
  for (const auto& image : text.images()) {
    if (image.first >= end) break;
    const auto number = number_of(image.embeddings);
    for (auto i = image.first; i < std::min(image.end(), end); ++i) at(i) = number;
  }
  return ids;
}

bool PrefixCache::has_windows(const Node& node) const {
  return std::ranges::find(node.blocks, kNoBlock) == node.blocks.end();
}

// The first token that the token at `end` sees in a local layer, at the beginning of its block.
int64_t PrefixCache::first_in_window(int64_t end) const {
  auto first = end;
  for (const auto& kind : store_->kinds()) {
    if (kind.window) first = std::min(first, kind.first_seen(end));
  }
  return first / BlockCache::kPositions * BlockCache::kPositions;
}

// The nodes at whose last the text can go on.
std::vector<PrefixCache::Node*> PrefixCache::walk(const Text& text) {
  std::vector<Node*> nodes;
  auto* node = &root_;
  for (const auto& ids : ids_of(text, std::min(text.prompt_size(), text.size() - 1))) {
    const auto child = node->children.find(ids);
    if (child == node->children.end()) break;
    node = child->second.get();
    nodes.push_back(node);
  }
  const auto can_go_on = [&] {
    const auto end = nodes.back()->end;
    if (text.is_inside_image(end)) return false;
    const auto window = std::span(nodes).subspan(
        static_cast<size_t>(first_in_window(end) / BlockCache::kPositions));
    return std::ranges::all_of(window, [&](const Node* seen) { return has_windows(*seen); });
  };
  while (!nodes.empty() && !can_go_on()) nodes.pop_back();
  return nodes;
}

void PrefixCache::touch(Node& node) {
  const auto listed = leaves_.erase({node.used, &node});
  node.used = ++clock_;
  if (listed > 0) leaves_.emplace(node.used, &node);
}

int64_t PrefixCache::known(const Text& text) {
  const auto nodes = walk(text);
  if (nodes.empty()) return 0;
  touch(*nodes.back());
  return nodes.back()->end;
}

std::optional<Sequence> PrefixCache::find(const Text& text) {
  const auto nodes = walk(text);
  if (nodes.empty()) return std::nullopt;
  auto& last = *nodes.back();
  touch(last);
  make_border(last);
  std::vector<Sequence::Table> tables(store_->kinds().size());
  for (size_t i = 0; i < tables.size(); ++i) {
    auto& [blocks, first] = tables[i];
    first = store_->kinds()[i].first_seen(last.end) / BlockCache::kPositions;
    for (auto n = static_cast<size_t>(first); n < nodes.size(); ++n) {
      blocks.push_back(nodes[n]->blocks[i]);
    }
  }
  return Sequence(store_, std::move(tables), /*slot=*/std::nullopt, last.end);
}

// Those that the node has not.
void PrefixCache::take_blocks(Node& node, const Sequence& sequence) {
  const auto index = node.end / BlockCache::kPositions - 1;
  const bool had_windows = has_windows(node);
  for (size_t i = 0; i < node.blocks.size(); ++i) {
    const auto [blocks, first] = sequence.table(i);
    if (node.blocks[i] != kNoBlock || index < first) continue;
    node.blocks[i] = blocks[static_cast<size_t>(index - first)];
    store_->kinds()[i].pool.share(node.blocks[i]);
  }
  if (!had_windows && has_windows(node) && node.borders == 0) {
    loose_.emplace(node.inserted, &node);
  }
}

PrefixCache::Node& PrefixCache::add_child(Node& parent, const Ids& ids) {
  leaves_.erase({parent.used, &parent});
  auto child = std::make_unique<Node>();
  child->parent = &parent;
  child->ids = ids;
  child->end = parent.end + BlockCache::kPositions;
  child->blocks.assign(store_->kinds().size(), kNoBlock);
  child->used = child->inserted = ++clock_;
  for (auto i = ids.begin(); i != ids.end(); ++i) {
    if (*i < 0 && (i == ids.begin() || *i != *(i - 1))) child->images.push_back(images_.at(*i));
  }
  leaves_.emplace(child->used, child.get());
  return *(parent.children[ids] = std::move(child));
}

void PrefixCache::insert(const Text& text) {
  auto* node = &root_;
  for (const auto& ids : ids_of(text, std::min(text.prompt_size(), text.done()))) {
    const auto child = node->children.find(ids);
    node = child == node->children.end() ? &add_child(*node, ids) : child->second.get();
    take_blocks(*node, *text.sequence);
    if (node->end % kTokensPerBorder == 0) make_border(*node);
  }
  if (node == &root_) return;
  touch(*node);
  if (text.done() >= text.prompt_size()) make_border(*node);
}

void PrefixCache::make_border(Node& node) {
  if (std::exchange(node.is_border, true)) return;
  const auto first = first_in_window(node.end);
  for (auto* seen = &node; seen != &root_ && seen->end > first; seen = seen->parent) {
    ++seen->borders;
    loose_.erase({seen->inserted, seen});
  }
}

// Whether one of the node's blocks, or of those of local layers, is nobody else's.
bool PrefixCache::holds_alone(const Node& node, bool only_windows) const {
  for (size_t i = 0; i < node.blocks.size(); ++i) {
    const auto& kind = store_->kinds()[i];
    if (node.blocks[i] == kNoBlock || (only_windows && !kind.window)) continue;
    if (!kind.pool.is_shared(node.blocks[i])) return true;
  }
  return false;
}

void PrefixCache::release(Node& node, bool only_windows) {
  for (size_t i = 0; i < node.blocks.size(); ++i) {
    auto& kind = store_->kinds()[i];
    if (node.blocks[i] == kNoBlock || (only_windows && !kind.window)) continue;
    kind.pool.release(std::exchange(node.blocks[i], kNoBlock));
  }
}

void PrefixCache::remove(Node& leaf) {
  if (leaf.is_border) {
    const auto first = first_in_window(leaf.end);
    for (auto* seen = &leaf; seen != &root_ && seen->end > first; seen = seen->parent) {
      if (--seen->borders == 0 && has_windows(*seen)) loose_.emplace(seen->inserted, seen);
    }
  }
  leaves_.erase({leaf.used, &leaf});
  loose_.erase({leaf.inserted, &leaf});
  auto& parent = *leaf.parent;
  parent.children.erase(parent.children.find(leaf.ids));
  if (&parent == &root_ || !parent.children.empty()) return;
  leaves_.emplace(parent.used, &parent);
}

bool PrefixCache::evict() {
  for (const auto& entry : loose_) {
    if (!holds_alone(*entry.second, /*only_windows=*/true)) continue;
    release(*entry.second, /*only_windows=*/true);
    loose_.erase(entry);
    return true;
  }
  for (const auto& [used, leaf] : leaves_) {
    if (!holds_alone(*leaf, /*only_windows=*/false)) continue;
    // Up to where another text goes on: what is between has no windows of its own.
    for (auto* node = leaf;;) {
      auto* parent = node->parent;
      release(*node, /*only_windows=*/false);
      remove(*node);
      if (parent == &root_ || parent->is_border || !parent->children.empty()) break;
      node = parent;
    }
    forget_images();
    return true;
  }
  return false;
}

void PrefixCache::clear() {
  while (!leaves_.empty()) {
    auto& leaf = *leaves_.begin()->second;
    release(leaf, /*only_windows=*/false);
    remove(leaf);
  }
  images_.clear();
}

int64_t PrefixCache::bytes() const {
  int64_t total = 0;
  std::vector<const Node*> left{&root_};
  while (!left.empty()) {
    const auto& node = *left.back();
    left.pop_back();
    for (size_t i = 0; i < node.blocks.size(); ++i) {
      const auto& kind = store_->kinds()[i];
      if (node.blocks[i] == kNoBlock || kind.pool.is_shared(node.blocks[i])) continue;
      total += kind.block_bytes;
    }
    for (const auto& [ids, child] : node.children) left.push_back(child.get());
  }
  return total;
}

}  // namespace gemma
