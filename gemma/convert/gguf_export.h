#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include <torch/types.h>

#include <gemma/config/config.h>
#include <gemma/text/tokenizer.h>
#include <gemma/weights/weight_source.h>
#include <gemma/weights/weights.h>

namespace gemma {

struct GgufOptions {
  std::optional<torch::Dtype> dtype;  // Of matrices; none: as the source has them.
  bool q8_0 = false;                  // Matrices as Q8_0: 8 bits, one scale for each 32.
  bool overwrite = false;
};

/// Writes a GGUF file that llama.cpp and Checkpoint read, with the tokenizer in it. Norms are in
/// float32; there 1 + weight loses what is below 2^-23, everything else stays bit for bit (unless
/// quantised). The file appears when it is complete. -> its size in bytes.
///
/// `progress` is called after each tensor, with the sizes of the input. Throws std::runtime_error,
/// naming the file and the cure, for weights or a config that GGUF cannot hold, and as OutputFile.
uint64_t export_gguf(const WeightSource& source,
                     const GemmaConfig& config,
                     const Tokenizer& tokenizer,
                     const std::filesystem::path& path,
                     const GgufOptions& options = {},
                     const ProgressCallback& progress = {});

}  // namespace gemma
