#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include <gemma/checkpoint/output_file.h>
#include <gemma/checkpoint/zip_writer.h>

namespace gemma {

/// Writes what Python's torch.save({'model_state_dict': OrderedDict(...)}, path) writes, tensor by
/// tensor: torch.load(weights_only=True, mmap=True), gemma_pytorch and Checkpoint read it. A second
/// key of the dict may say what model it is, which gemma_pytorch passes over. The file appears when
/// finish() returns; without that, or when anything throws, nothing is left.
///
/// Files that cannot be written throw std::runtime_error as OutputFile says.
class TorchWriter {
 public:
  /// A file that is there already is replaced only with `overwrite`.
  explicit TorchWriter(const std::filesystem::path& path, bool overwrite = false);

  /// Any shape, strides and device; the file holds it contiguous, and a contiguous tensor on the
  /// CPU is not copied in memory. Tensors that share memory are written once each. The order of the
  /// calls is that of the dict.
  ///
  /// Throws std::invalid_argument for a name that is given twice or is not UTF-8, and for a tensor
  /// without data or of a dtype that Checkpoint does not know.
  void add(std::string_view name, const at::Tensor& tensor);

  /// The text of a config.json to put in the file (Checkpoint::config_json). Throws
  /// std::invalid_argument when it is not UTF-8.
  void set_config(std::string_view json);

  /// Writes the rest, waits for the disk, and gives the file its name. The last call.
  void finish();

  /// Bytes written so far.
  uint64_t size() const { return file_.size(); }

 private:
  OutputFile file_;
  ZipWriter zip_;
  std::set<std::string, std::less<>> names_;
  std::string items_;   // The pickled names and tensors.
  std::string config_;  // Pickled, with its key; empty when there is none.
};

/// All of it at once, in this order. Throws as TorchWriter does.
void save_weights(const std::filesystem::path& path,
                  const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                  bool overwrite = false);

}  // namespace gemma
