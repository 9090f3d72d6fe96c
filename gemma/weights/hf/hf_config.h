#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include <gemma/config/config.h>

namespace gemma {

class Fields;
struct HfFamily;

/// The config that a config.json of Hugging Face transformers describes: model_type "gemma",
/// "gemma2", "gemma3_text", "gemma3" or "vaultgemma", of old and new releases. Fields that are not
/// there have the family's defaults; a field that the published variants omit is omitted. The
/// tokenizer is none. Of the 262208 rows that Gemma 3's embedding may have, those count that stand
/// for tokens: 262144, and those that were added in the folder of the file `tokenizer`. Throws
/// std::runtime_error: one line that names `path`, which serves for nothing else, and the field.
GemmaConfig config_from_hf(std::string_view json,
                           const std::string& path,
                           const std::optional<std::filesystem::path>& tokenizer = std::nullopt);

/// That of the config.json in `directory`. Throws FileNotFound when there is none, and as
/// config_from_hf does.
GemmaConfig read_hf_config(const std::filesystem::path& directory);

/// The same of a model that embeds text, whose tokens see all others (use_bidirectional_attention):
/// sliding_window_size is what a token of a local layer sees on each side, itself included. Throws
/// as read_hf_config does, and for a model that continues text.
GemmaConfig read_hf_encoder_config(const std::filesystem::path& directory);

/// Whether `path` is a directory with a config.json.
bool has_hf_config(const std::filesystem::path& path);

// What the readers of several families share; they throw as config_from_hf does.

/// The language model that the fields of a config.json, or of a part of it, describe.
GemmaConfig hf_text_config(const Fields& fields, const HfFamily& family);

/// The vision model; what is not there is as in `defaults`, and encoding_sequence_length as well.
SiglipVisionModelConfig hf_vision_config(const Fields& fields,
                                         SiglipVisionModelConfig defaults = {});

/// What they say of the weights' dtype: "float32" when nothing, and for float64.
std::string hf_dtype(const Fields& fields);

/// The config.json that transformers reads. Throws std::invalid_argument, naming the field, when
/// transformers has no such model, or the config is quantised.
std::string config_to_hf(const GemmaConfig& config);

}  // namespace gemma
