#pragma once

#include <filesystem>
#include <string>

#include <gemma/config/griffin_config.h>
#include <gemma/weights/weight_source.h>

namespace gemma::recurrentgemma {

/// The config of a RecurrentGemma: sizes from the tensors, the rest from the config.json in the
/// file or the directory, or else from the preset that the sizes fit. Throws std::runtime_error,
/// naming the file and the field, when nothing says it, or what says it is of another model.
GriffinConfig griffin_config_of(const WeightSource& source);

/// griffin_config_of what WeightSource::open takes, and throws as that does.
GriffinConfig config_from_pretrained(const std::filesystem::path& path);

/// The dtype of the embedding, "bfloat16", "float16" or "float32": for float64, in which no model
/// computes, float32.
std::string griffin_dtype_of(const WeightSource& source);

}  // namespace gemma::recurrentgemma
