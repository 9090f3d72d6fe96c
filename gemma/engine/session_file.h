#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include <gemma/engine/state_store.h>
#include <gemma/engine/text.h>
#include <gemma/models/engine_model.h>

// Texts as files: safetensors of the tokens, the images, and what the model keeps of them.
namespace gemma {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// What a file of the text holds. These are copies: the text may go on before they are written.
NamedTensors session_tensors(const Text& text,
                             const StateStore& store,
                             const EngineModelImpl& model);

/// Writes them, in the place of a file that is there. Throws std::runtime_error as OutputFile.
void write_session_file(const std::filesystem::path& path, const NamedTensors& tensors);

/// A text that was read, and what its sequence is to hold.
struct SavedSession {
  Text text;
  int64_t length = 0;              // Tokens that are done.
  std::vector<int64_t> first;      // As Sequence::Table::first, one a kind of layers.
  std::vector<at::Tensor> keys;    // [blocks, K, kPositions, D], one a layer that keeps them.
  std::vector<at::Tensor> values;  // Likewise.
  std::vector<RecurrentCache>
      states;  // Without the dimension of slots, one a layer that keeps one.

  /// Of a kind of layers.
  int64_t blocks(size_t kind) const { return BlockCache::blocks_for(length) - first[kind]; }
};

/// Reads a file for a store of the model. Throws FileNotFound, and std::runtime_error with a line
/// that names the file when it is damaged or something else, and for keys and values of another
/// model or dtype.
SavedSession read_session_file(const std::filesystem::path& path,
                               const StateStore& store,
                               const EngineModelImpl& model);

/// A sequence of what was read, in blocks and a slot that have to be free.
Sequence restore_sequence(const SavedSession& saved, const std::shared_ptr<StateStore>& store);

}  // namespace gemma
