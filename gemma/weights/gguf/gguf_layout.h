#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/config/config.h>
#include <gemma/weights/layout.h>

namespace gemma {

/// The layout of the GGUF files that llama.cpp reads: Gemma 1, 2 and 3, text. None for a checkpoint
/// that is not a GGUF file, or is of another architecture.
///
/// Queries, keys and values become one matrix, and 1 is taken from the weights of norms, where GGUF
/// has added it. output.weight is the Layout's head.
std::optional<Layout> gguf_layout(const Checkpoint& checkpoint);

/// A part of one of gemma_pytorch's tensors as a tensor of a GGUF file.
struct GgufPart {
  std::string name;
  int64_t first, rows;  // Of the whole.
  bool is_norm;         // Written as float32, and 1 is added.
};

/// What becomes of `name`, of a tensor with `rows` rows: one part, or queries, keys and values.
/// Empty for a name that GGUF has no counterpart for.
std::vector<GgufPart> gguf_parts(const GemmaConfig& config, std::string_view name, int64_t rows);

}  // namespace gemma
