#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace gemma {

/// A regular file in memory, without reading it: pages come from the disk when they are touched,
/// huge ones where the kernel has such of files, and it may drop them again. Copy on write: a write
/// through `data()` changes this process's page, never the file. Whoever truncates the file while
/// it is mapped makes later reads raise SIGBUS; replace a checkpoint by renaming, not by rewriting
/// it in place.
///
/// Shared as std::shared_ptr<const MappedFile>: every tensor that views the bytes holds one.
class MappedFile {
 public:
  /// Throws FileNotFound when nothing is there, and std::runtime_error when it is a directory, a
  /// pipe, a device or a socket (none of which is waited for), empty, or not readable.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Mutable because at::from_blob wants it; the pages are this process's own.
  std::byte* data() const { return data_; }

  /// Drops the pages that lie wholly in the range, and with them what was written to them.
  void release(size_t offset, size_t size) const;

 private:
  std::string path_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace gemma
