#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include <gemma/config/paligemma_config.h>

namespace gemma {

/// The config that a config.json with model_type "paligemma" describes, of old and new releases,
/// without a tokenizer. Of the rows that the embedding has behind its tokens, those count that were
/// added in the folder of `tokenizer`, a file or a folder. Throws std::runtime_error: one line that
/// names `path`, which serves for nothing else, and the field.
PaliGemmaConfig paligemma_from_hf(
    std::string_view json,
    const std::string& path,
    const std::optional<std::filesystem::path>& tokenizer = std::nullopt);

}  // namespace gemma
