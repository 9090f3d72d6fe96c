#pragma once

#include <cstdint>
#include <filesystem>

#include <gemma/config/config.h>
#include <gemma/convert/convert.h>
#include <gemma/weights/weight_source.h>

namespace gemma {

struct SavedModel {
  int64_t tensors = 0, shards = 0;
  uint64_t bytes = 0;
};

/// Writes the weights of a model of `config` into `directory`, which is there, as Hugging Face
/// transformers reads them: model.safetensors, or above 5 GB shards and their index, and
/// config.json. The dtype is options.dtype, else that of the files. No more than one tensor is in
/// memory. Throws std::invalid_argument for options.quant, whose numbers transformers does not
/// know, and as config_to_hf and convert_weights do; what was written until then stays.
SavedModel write_hf(const WeightSource& source,
                    GemmaConfig config,
                    ConvertOptions options,
                    const std::filesystem::path& directory,
                    const ProgressCallback& progress = {},
                    uint64_t shard_bytes = 5'000'000'000);

}  // namespace gemma
