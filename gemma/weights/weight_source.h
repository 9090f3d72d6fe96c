#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <torch/types.h>

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/ops/block_layout.h>

namespace gemma {

/// A matrix as the blocks of a GGUF.
struct BlockMatrix {
  torch::Tensor bytes;  // uint8 [layout.bytes()]
  BlockLayout layout;   // Of float32.
};

/// The weights of a model under the reference's names, gemma_pytorch's or recurrentgemma's,
/// whatever names the files have: a Checkpoint, seen through the Layout that its names fit. With
/// the reference's own names that is the Checkpoint as it is. Copies are cheap and share the
/// mapping.
class WeightSource {
 public:
  /// What Checkpoint::open takes, but for one shard of several; throws as it does and as the
  /// constructor does.
  static WeightSource open(const std::filesystem::path& path);

  /// Finds the layout. A prefix that another program put before all names ("module.", "_orig_mod.",
  /// "base_model.model.") is not part of them. Names that no layout knows are kept as they are.
  /// Throws std::runtime_error, naming the file and the tensor, when the layout is known and a
  /// tensor that another one is made with is missing or does not fit it.
  WeightSource(Checkpoint checkpoint);  // NOLINT(google-explicit-constructor): it stands in for it.

  /// The files as they are.
  const Checkpoint& checkpoint() const;

  /// In the order of the files. Where a tensor is made from others, `offset` is 0.
  const std::vector<TensorEntry>& entries() const;
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  const TensorEntry* find(std::string_view name) const;  // nullptr when there is none.

  /// As Checkpoint::tensor. A tensor that is made from others is in memory of its own, and the
  /// pages of those are given back on the way: nothing is in memory twice. Throws
  /// std::runtime_error when there is none.
  torch::Tensor tensor(std::string_view name) const;

  /// The matrix in the blocks that the file has it in: a view of the file, or where it is joined
  /// from several tensors memory of its own. None unless all of it stands in blocks.
  std::optional<BlockMatrix> blocks(std::string_view name) const;

  /// Whether `tensor` is a view of the file, not memory of its own.
  bool is_view(std::string_view name) const;

  /// As Checkpoint::rows. Only for a tensor that is the file's but for its name it is less work
  /// than `tensor`.
  torch::Tensor rows(std::string_view name, int64_t first, int64_t count) const;

  /// As Checkpoint::release, of all files' tensors that it is made from.
  void release(std::string_view name) const;

  /// Throws std::runtime_error when the tensors are not all that the model computes with: a second
  /// matrix for the logits has other numbers than the embedding, for which Gemma has no place, or
  /// an adapter lies in the directory. It reads both matrices, so call it when all tensors are
  /// read.
  void check_complete() const;

  /// The name in the file of what it is made from, of the first if there are several. Throws
  /// std::runtime_error when there is none.
  const std::string& name_in_file(std::string_view name) const;

  /// The path of the file that holds it, or the first of what it is made from, for messages.
  const std::string& file_of(std::string_view name) const;

  /// As given to `open`, for messages.
  const std::string& path() const;

  /// "gemma_pytorch", "recurrentgemma", "Hugging Face", "GGUF", "big_vision": whose names they are.
  /// gemma_pytorch too when nobody's.
  std::string_view layout() const;

 private:
  struct Contents;
  size_t index_of(std::string_view name) const;

  std::shared_ptr<const Contents> contents_;
};

}  // namespace gemma
