#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <gemma/checkpoint/gguf_metadata.h>
#include <gemma/checkpoint/tensor_entry.h>

namespace gemma {

struct GgufFile {
  GgufMetadata metadata;
  std::vector<TensorEntry> tensors;  // Sizes as PyTorch has them: GGUF's, last one first.
};

/// Whether `file` begins as GGUF files do.
bool is_gguf(std::span<const std::byte> file);

/// What a GGUF file of version 2 or 3 says of itself. Reads no tensor data. Throws
/// std::runtime_error: one line that names `path`, which serves for nothing else.
GgufFile read_gguf(std::span<const std::byte> file, const std::string& path);

}  // namespace gemma
