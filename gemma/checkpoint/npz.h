#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <gemma/checkpoint/tensor_entry.h>

namespace gemma {

/// Whether `file` begins as an archive of numpy.savez does: a zip entry whose name ends in ".npy".
bool is_npz(std::span<const std::byte> file);

/// The arrays of a file written by numpy.savez, in its order, under their names without ".npy".
/// Arrays of two bytes without a type are bfloat16, which NumPy itself does not have. Reads no
/// array data. Throws std::runtime_error: one line that names `path`, which serves for nothing
/// else.
std::vector<TensorEntry> read_npz(std::span<const std::byte> file, const std::string& path);

/// Whether `file` begins as numpy.save begins its files.
bool is_npy(std::span<const std::byte> file);

/// The array of a file written by numpy.save, under the file's name without ".npy"; as above.
TensorEntry read_npy(std::span<const std::byte> file, const std::string& path);

}  // namespace gemma
