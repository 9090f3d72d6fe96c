#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <c10/core/ScalarType.h>

#include <gemma/checkpoint/tensor_entry.h>

namespace gemma {

/// Whether `file` begins as a safetensors file does: the length of a header that it can hold, and
/// the header's brace.
bool is_safetensors(std::span<const std::byte> file);

/// The tensors of a safetensors file, in the order of its header. Reads no tensor data. The tensors
/// cover the data without overlap or gap. Throws std::runtime_error: one line that names `path`,
/// which serves for nothing else.
std::vector<TensorEntry> read_safetensors(std::span<const std::byte> file, const std::string& path);

/// The format's name of a dtype, "BF16"; empty for one that this does not read or write.
std::string_view safetensors_dtype(c10::ScalarType dtype);

}  // namespace gemma
