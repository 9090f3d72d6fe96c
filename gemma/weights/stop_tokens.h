#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace gemma {

/// The tokens that end a text by the word of the checkpoint in `path`: the eos, eot and eom of a
/// GGUF file, else eos_token_id of generation_config.json and config.json in the folder. Fine-tunes
/// end theirs with tokens of their own. Empty where nothing says it. Throws std::runtime_error,
/// naming the file and the field, when what says it is damaged.
std::vector<int64_t> stop_tokens(const std::filesystem::path& path);

}  // namespace gemma
