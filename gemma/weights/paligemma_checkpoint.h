#pragma once

#include <filesystem>

#include <gemma/config/paligemma_config.h>
#include <gemma/weights/weight_source.h>

namespace gemma {

/// The config of a PaliGemma by the first that says it: the config.json in the file or the
/// directory, the published size (get_paligemma_config) whose shapes the weights have. `dtype` is
/// that of the weights, `tokenizer` is tokenizer_of. Throws std::runtime_error, naming the file,
/// when it is of another family, nothing says the config, or what says it is damaged.
PaliGemmaConfig paligemma_config_of(const WeightSource& source);

/// paligemma_config_of what WeightSource::open takes, and throws as that does.
PaliGemmaConfig paligemma_config_from_pretrained(const std::filesystem::path& path);

}  // namespace gemma
