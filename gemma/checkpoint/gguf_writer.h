#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>

#include <gemma/checkpoint/output_file.h>
#include <gemma/checkpoint/tensor_entry.h>

namespace gemma {

/// A value of a key in a GGUF file, of the type that llama.cpp asks for.
using GgufValue = std::variant<uint32_t,
                               float,
                               bool,
                               std::string,
                               std::vector<bool>,
                               std::vector<int32_t>,
                               std::vector<float>,
                               std::vector<std::string>>;

/// A tensor that is going to be written.
struct GgufTensor {
  std::string name;
  std::vector<int64_t> sizes;            // As PyTorch has them.
  c10::ScalarType dtype;                 // float32, float16 or bfloat16; of Q8_0, float32.
  Encoding encoding = Encoding::kPlain;  // Or kQ8_0.
};

/// Writes a GGUF file of version 3, tensor by tensor. The file appears when finish() returns;
/// without that, or when anything throws, nothing is left.
///
/// Files that cannot be written throw std::runtime_error as OutputFile says.
class GgufWriter {
 public:
  /// Writes all but the tensors' data. A file that is there already is replaced only with
  /// `overwrite`. Throws std::invalid_argument for a name or key that is given twice, is empty, too
  /// long or not UTF-8, for a dtype or shape that GGUF does not have.
  GgufWriter(const std::filesystem::path& path,
             const std::vector<std::pair<std::string, GgufValue>>& metadata,
             std::vector<GgufTensor> tensors,
             bool overwrite = false);

  /// The data of the next tensor, on any device and with any strides. Throws std::invalid_argument
  /// unless name, sizes and dtype are those that were announced, and for numbers that Q8_0 cannot
  /// hold.
  void add(std::string_view name, const at::Tensor& tensor);

  /// Waits for the disk, and gives the file its name. The last call; throws std::logic_error when a
  /// tensor was not added.
  void finish();

  /// Bytes written so far.
  uint64_t size() const { return file_.size(); }

 private:
  [[noreturn]] void refuse(std::string_view what) const;
  void check(const std::vector<std::pair<std::string, GgufValue>>& metadata) const;
  void write_padding();
  void write_q8_0(const at::Tensor& values);

  OutputFile file_;
  std::vector<GgufTensor> tensors_;
  size_t next_ = 0;
};

}  // namespace gemma
