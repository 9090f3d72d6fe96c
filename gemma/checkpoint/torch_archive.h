#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <c10/core/ScalarType.h>

namespace gemma {

/// A tensor as a checkpoint holds it. Every byte a reader can reach through sizes and strides lies
/// in [offset, offset + nbytes) of the file. Tensors may share bytes, and a stride may be 0.
struct TensorEntry {
  std::string name;
  c10::ScalarType dtype;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;  // In elements; none is negative.
  uint64_t offset;               // In bytes, from the start of the file to the first element.
  uint64_t nbytes;               // From there to the end of the last element; 0 without elements.
};

/// The tensors of a file written by torch.save (PyTorch 1.6 and newer), in the order of its dict:
/// that under 'model_state_dict' where there is one, else the top level itself. Values that are
/// None, numbers or strings are left out. Runs nothing the file contains and reads no tensor data.
/// Throws std::runtime_error: one line that names `path`, which serves for nothing else.
std::vector<TensorEntry> read_torch_archive(std::span<const std::byte> file,
                                            const std::string& path);

}  // namespace gemma
