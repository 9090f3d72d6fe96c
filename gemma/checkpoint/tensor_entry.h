#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <c10/core/ScalarType.h>

#include <gemma/checkpoint/encoding.h>

namespace gemma {

/// A tensor as a checkpoint holds it. Every byte a reader can reach lies in [offset, offset +
/// nbytes) of the file: through sizes and strides if it is plain, else through its blocks. Tensors
/// may share bytes, and a stride may be 0.
struct TensorEntry {
  std::string name;
  c10::ScalarType dtype;  // Of Checkpoint::tensor; float32 for what stands in blocks.
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;  // In elements; none is negative.
  uint64_t offset;               // In bytes, from the start of the file to the first element.
  uint64_t nbytes;               // From there to the end of the last element; 0 without elements.
  Encoding encoding = Encoding::kPlain;
};

}  // namespace gemma
