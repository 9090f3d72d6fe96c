#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <gemma/engine/sequence.h>
#include <gemma/engine/state_store.h>
#include <gemma/engine/text.h>

namespace gemma {

/// Keys and values of beginnings of prompts, so that they need not be computed again: a tree whose
/// nodes are blocks of positions, found by their tokens and images in full. What was generated is
/// not kept, as its last bits are those of decode passes.
///
/// A text can go on at the end of a node when the nodes before it still have the blocks of local
/// layers, as far as a window reaches. These are kept before each prompt's end, before each place
/// where a text went on, and before each 2048 tokens; elsewhere they go first when memory is short.
/// Then the prompt that was not used for longest goes.
class PrefixCache {
 public:
  explicit PrefixCache(std::shared_ptr<StateStore> store);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  /// Tokens of the text that are known: whole blocks, never all of it, and no part of an image.
  /// They count as used.
  int64_t known(const Text& text);

  /// A sequence of the tokens that are known; none when there are none.
  std::optional<Sequence> find(const Text& text);

  /// Keeps what the text's sequence has of its prompt.
  void insert(const Text& text);

  /// Frees what is needed least -> whether a block is free by that.
  bool evict();

  void clear();

  /// Of blocks that nothing else holds.
  int64_t bytes() const;

 private:
  // Tokens of a block. An image's are its number instead, which is negative.
  using Ids = std::array<int64_t, BlockCache::kPositions>;

  struct Node {
    Node* parent = nullptr;
    std::map<Ids, std::unique_ptr<Node>> children;
    Ids ids{};                       // Its place in parent->children.
    int64_t end = 0;                 // Tokens up to its end.
    std::vector<at::Tensor> images;  // Those that it has a part of.
    std::vector<int32_t> blocks;     // One a kind of layers.
    int64_t used = 0;                // When it was used last, as the end of a text.
    int64_t inserted = 0;            // When it was inserted.
    bool is_border = false;          // The windows before its end are kept.
    int borders = 0;                 // Whose window it belongs to.
  };
  // The first is the first to go.
  using Order = std::set<std::pair<int64_t, Node*>>;

  std::vector<Ids> ids_of(const Text& text, int64_t tokens);
  int64_t number_of(const at::Tensor& image);
  void forget_images();
  Node& add_child(Node& parent, const Ids& ids);
  std::vector<Node*> walk(const Text& text);
  bool has_windows(const Node& node) const;
  int64_t first_in_window(int64_t end) const;
  void take_blocks(Node& node, const Sequence& sequence);
  void touch(Node& node);
  void make_border(Node& node);
  void remove(Node& leaf);
  bool holds_alone(const Node& node, bool only_windows) const;
  void release(Node& node, bool only_windows);

  std::shared_ptr<StateStore> store_;
  Node root_;
  Order leaves_;  // By `used`.
  Order loose_;   // With blocks of local layers, but in no kept window. By `inserted`.
  int64_t clock_ = 0;
  std::map<int64_t, at::Tensor> images_;  // By number.
  int64_t images_numbered_ = 0;
};

}  // namespace gemma
