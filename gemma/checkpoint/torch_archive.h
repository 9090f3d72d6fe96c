#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <gemma/checkpoint/tensor_entry.h>

namespace gemma {

/// The tensors of a file written by torch.save (PyTorch 1.6 and newer), in the order of its dict:
/// that under 'model_state_dict' where there is one, else the top level itself. Values that are
/// None, numbers or strings are left out. Runs nothing the file contains and reads no tensor data.
/// Throws std::runtime_error: one line that names `path`, which serves for nothing else.
std::vector<TensorEntry> read_torch_archive(std::span<const std::byte> file,
                                            const std::string& path);

}  // namespace gemma
