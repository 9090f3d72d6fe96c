#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include <gemma/config/config.h>
#include <gemma/weights/weight_source.h>

namespace gemma {

/// What model the weights are of, by the first that says it: `variant` unless it is empty, the
/// metadata of a GGUF file, the config.json in a .ckpt (TorchWriter::set_config) or in the
/// directory, the variant whose shapes they have (detect_variant). `dtype` and `quant` are those of
/// the weights, `tokenizer` is tokenizer_of. None when nothing says it.
///
/// Throws std::invalid_argument for an unknown `variant`, and std::runtime_error, naming the file
/// and the field, when what says it is damaged, or of a model that is no Gemma 1, 2 or 3.
std::optional<GemmaConfig> config_of(const WeightSource& source, const std::string& variant = {});

/// The dtype of a Gemma's float weights, or of the scales: "bfloat16", "float16" or "float32".
/// bfloat16 where blocks of few bits stand for them, which hold no more than that; float32 for
/// float64, in which no model computes.
std::string dtype_of_weights(const WeightSource& source);

/// The tokenizer that comes with the weights, as load_tokenizer takes it: the GGUF file if it holds
/// one, else tokenizer.model or tokenizer.json beside them. None when there is none.
std::optional<std::string> tokenizer_of(const WeightSource& source);

/// tokenizer.model or tokenizer.json in the directory, or beside the file. None when there is none.
std::optional<std::string> tokenizer_beside(const std::filesystem::path& path);

/// config_of what Checkpoint::open takes; of a directory with config.json, which needs no weights,
/// that with its own dtype. Throws as they do, and std::runtime_error when nothing says what model
/// it is.
GemmaConfig config_from_pretrained(const std::filesystem::path& path);

}  // namespace gemma
