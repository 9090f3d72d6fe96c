#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gemma {

/// A file that appears under its name when it is complete, or never. Until then its bytes are in
/// "<name>.part-<process>-<number>" beside it, which only a killed process leaves behind.
///
/// What fails throws std::runtime_error: one line with the file, the reason and what to do. After
/// that the object can only be destroyed.
class OutputFile {
 public:
  /// Throws also when something is there already, unless it is a file and `overwrite` is set.
  explicit OutputFile(const std::filesystem::path& path, bool overwrite = false);
  /// Deletes what was written, unless it was committed.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  /// Appends.
  void write(std::span<const std::byte> bytes);
  /// Replaces bytes that were written before.
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  /// How many bytes it has.
  uint64_t size() const { return size_; }

  /// Waits until the disk has the bytes, then gives the file its name.
  void commit();

  const std::string& path() const { return path_; }

 private:
  void write_to_disk(uint64_t offset, std::span<const std::byte> bytes) const;
  void flush();
  void publish() const;

  std::string path_;
  std::string part_;  // Where the bytes are until then.
  bool overwrite_;
  bool committed_ = false;
  int fd_ = -1;
  uint64_t size_ = 0;
  std::vector<std::byte> pending_;  // The last bytes, of a block that is not full yet.
};

}  // namespace gemma
