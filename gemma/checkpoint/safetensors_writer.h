#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include <gemma/checkpoint/output_file.h>

namespace gemma {

/// A tensor that is going to be written.
struct TensorSpec {
  std::string name;
  at::ScalarType dtype;
  std::vector<int64_t> sizes;

  uint64_t nbytes() const;
};

/// Writes a safetensors file, tensor by tensor. The header, which says what is in it, comes first
/// in the file, so all tensors are named before the first is given. The file appears when finish()
/// returns; without that, or when anything throws, nothing is left.
///
/// Files that cannot be written throw std::runtime_error as OutputFile says.
class SafetensorsWriter {
 public:
  /// A file that is there already is replaced only with `overwrite`. Throws std::invalid_argument
  /// for a name that is given twice or is not UTF-8, and for a dtype that the format does not have.
  SafetensorsWriter(const std::filesystem::path& path,
                    std::vector<TensorSpec> tensors,
                    bool overwrite = false);

  /// The next of them; any strides and device. Throws std::invalid_argument when it is another.
  void add(std::string_view name, const at::Tensor& tensor);

  /// Waits for the disk, and gives the file its name. The last call. Throws std::logic_error when
  /// tensors are missing.
  void finish();

  /// Bytes written so far.
  uint64_t size() const { return file_.size(); }

 private:
  OutputFile file_;
  std::vector<TensorSpec> tensors_;
  size_t next_ = 0;
};

}  // namespace gemma
