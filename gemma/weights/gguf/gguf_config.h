#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/config/config.h>

namespace gemma {

/// The config of the model in a GGUF file: Gemma 1, 2 or 3, of any size. What the file does not say
/// is as llama.cpp assumes it for the family. The tokenizer is the file itself (load_tokenizer).
///
/// Throws std::runtime_error, naming the file and the key, for another architecture, a missing key,
/// or a value that no model can have; and for a checkpoint that is not a GGUF file.
GemmaConfig gguf_config(const Checkpoint& checkpoint, const std::string& dtype = "bfloat16");

/// The query_pre_attn_scalar of a model of this generation and number of layers: that of the 27B
/// ones is another, which GGUF does not say and llama.cpp knows by their layers.
std::optional<int64_t> gguf_query_scalar(const GemmaConfig& config);

}  // namespace gemma
