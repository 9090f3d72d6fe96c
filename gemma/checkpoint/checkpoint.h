#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/gguf.h>
#include <gemma/checkpoint/tensor_entry.h>

namespace gemma {

/// The weights of a model on disk. Opening one reads names and shapes; the data is read by whoever
/// touches a tensor's elements. Copies are cheap and share the mapping.
class Checkpoint {
 public:
  /// A file written by torch.save or numpy.savez, a safetensors or GGUF file, or a directory with
  /// model.safetensors or pytorch_model.bin, whole or as <that>.index.json and its shards;
  /// safetensors go first. Nothing in the files is executed. Throws FileNotFound when there is
  /// nothing at `path` (or at a shard's), and std::runtime_error when the files are not what they
  /// should be: one line with the file, what was found and what to do.
  static Checkpoint open(const std::filesystem::path& path);

  /// In file order; over all shards, in the order of their names.
  const std::vector<TensorEntry>& entries() const;
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  const TensorEntry* find(std::string_view name) const;  // nullptr when there is none.

  /// A view of the mapped file, which lives as long as the tensor; a copy only where the bytes are
  /// not aligned to the element size. Writing to it changes memory, never the file. Neither
  /// requires_grad nor the device it was saved from is restored. What stands in blocks is computed
  /// anew by each call. Throws std::runtime_error when there is none.
  at::Tensor tensor(std::string_view name) const;

  /// `count` rows of it from `first`: tensor(name).narrow(0, first, count), without computing the
  /// other ones. Throws as `tensor` does, and std::out_of_range for rows that it does not have.
  at::Tensor rows(std::string_view name, int64_t first, int64_t count) const;

  /// The blocks of a tensor that stands in such: a view of the mapped file as uint8 [nbytes], which
  /// lives as long as the tensor. Throws as `tensor` does, and std::invalid_argument for a plain
  /// one.
  at::Tensor blocks(std::string_view name) const;

  /// What a GGUF file says besides its tensors, valid as long as the Checkpoint; nullptr for other
  /// files.
  const GgufMetadata* metadata() const;

  /// The text of the config.json that a file of torch.save may hold beside its tensors, as those of
  /// TorchWriter do; valid as long as the Checkpoint. None for other files and for several.
  std::optional<std::string_view> config_json() const;

  /// Gives the memory of the tensor's pages back: the next reader finds what the file holds, so
  /// nobody may have written to them. Throws as `tensor` does.
  void release(std::string_view name) const;

  /// The path of the file that holds it, for messages. Throws as `tensor` does.
  const std::string& file_of(std::string_view name) const;

  /// As given to `open`, for messages.
  const std::string& path() const;

 private:
  struct Contents;
  explicit Checkpoint(std::shared_ptr<const Contents> contents);
  size_t index_of(std::string_view name) const;

  std::shared_ptr<const Contents> contents_;
};

}  // namespace gemma
