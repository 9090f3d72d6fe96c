#pragma once

#include <map>
#include <string>
#include <string_view>

namespace gemma {

/// The file that makes a directory a checkpoint: {"weight_map": {"<tensor>": "<shard file>", ...}}.
inline constexpr std::string_view kShardIndexName = "pytorch_model.bin.index.json";

/// Tensor name -> shard. A shard is a bare file name, so joined to the directory it stays inside.
/// Throws std::runtime_error: one line that names `path`, which serves for nothing else.
std::map<std::string, std::string> read_shard_index(std::string_view json, const std::string& path);

}  // namespace gemma
