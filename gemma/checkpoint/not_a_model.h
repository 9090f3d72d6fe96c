#pragma once

#include <filesystem>
#include <vector>

#include <gemma/checkpoint/tensor_entry.h>

// What people name instead of a model. Each function throws std::runtime_error, one line that says
// what it is and what to give instead.
namespace gemma {

/// For a file of many: a shard or the index of shards, by its name. Nothing for what is no file.
void refuse_shard(const std::filesystem::path& file);

/// For a directory that holds no checkpoint: an adapter, a download cache, a collection of files.
[[noreturn]] void refuse_directory(const std::filesystem::path& directory);

/// For the tensors of an adapter without those of a model.
void refuse_adapter(const std::filesystem::path& file, const std::vector<TensorEntry>& tensors);

/// For a directory where an adapter lies beside the model: peft would apply it.
void refuse_adapter_beside(const std::filesystem::path& path);

}  // namespace gemma
