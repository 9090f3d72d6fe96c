#pragma once

#include <map>
#include <string>
#include <string_view>

namespace gemma {

/// Of {"weight_map": {"<tensor>": "<shard file>", ...}}, which makes a directory a checkpoint:
/// tensor name -> shard. A shard is a bare file name, so joined to the directory it stays inside.
/// Throws std::runtime_error: one line that names `path`, which serves for nothing else.
std::map<std::string, std::string> read_shard_index(std::string_view json, const std::string& path);

}  // namespace gemma
