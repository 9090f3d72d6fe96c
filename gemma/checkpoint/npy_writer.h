#pragma once

#include <filesystem>

#include <ATen/core/Tensor.h>

namespace gemma {

/// Writes a tensor, of any strides and device, as numpy.save does. The file appears when it is
/// complete. Throws std::invalid_argument for a dtype that NumPy does not have, bfloat16 above all,
/// and std::runtime_error as OutputFile does.
void write_npy(const std::filesystem::path& path, const at::Tensor& tensor, bool overwrite = false);

}  // namespace gemma
