#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <gemma/checkpoint/output_file.h>

namespace gemma {

/// Writes the zip archives that read_zip_directory reads: stored entries, their data aligned to 64
/// bytes as torch.save does, zip64 where a number needs it.
class ZipWriter {
 public:
  /// `file` is empty, outlives this and is committed by its owner.
  explicit ZipWriter(OutputFile& file) : file_(file) {}

  /// `name` is UTF-8, shorter than 64 KiB, and new to the archive. Throws as `file` does.
  void add(std::string_view name, std::span<const std::byte> data);

  /// Writes the directory, after which nothing can be added.
  void finish();

 private:
  OutputFile& file_;
  std::string directory_;
  uint64_t entries_ = 0;
};

}  // namespace gemma
