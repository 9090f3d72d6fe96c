#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gemma/checkpoint/tensor_entry.h>

namespace gemma {

/// Where in its dict a file may say what model it holds: the text of a config.json. gemma_pytorch
/// looks at 'model_state_dict' alone.
inline constexpr std::string_view kConfigKey = "config.json";

struct TorchArchive {
  std::vector<TensorEntry> tensors;
  std::optional<std::string_view> config;  // Under kConfigKey; a view of the file.
};

/// The tensors of a file written by torch.save (PyTorch 1.6 and newer), in the order of its dict:
/// that under 'model_state_dict' or, failing that, 'state_dict', else the top level itself. Values
/// that are no tensors are passed over: all that torch.load(weights_only=True) reads. Runs nothing
/// the file contains and reads no tensor data. Throws std::runtime_error: one line that names
/// `path`, which serves for nothing else.
TorchArchive read_torch_archive(std::span<const std::byte> file, const std::string& path);

}  // namespace gemma
