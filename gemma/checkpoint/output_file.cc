#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <stdexcept>
#include <system_error>
#include <unistd.h>

#include <fmt/format.h>

#include <gemma/checkpoint/output_file.h>

namespace gemma {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(std::string_view path, std::string_view what) {
  throw std::runtime_error(fmt::format("{}: {}", path, what));
}

// Written a block at a time, a file is kept in pages of that size, where the kernel has such, and
// is then mapped by them: memory is read up to a seventh faster than in pages of 4 KB.
constexpr size_t kBlock = size_t{2} << 20;

std::string reason(int error) { return std::generic_category().message(error); }

[[noreturn]] void refuse_to_replace(std::string_view path) {
  refuse(path, "is there already; choose another name, or allow to replace it (--force)");
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

void check_target(const fs::path& path, bool overwrite) {
  std::error_code unknown;  // Creating the file explains what cannot be looked at.
  const auto target = fs::status(path, unknown);
  if (fs::is_directory(target)) refuse(path.string(), "is a folder; name a file in it");
  if (fs::exists(target) && !fs::is_regular_file(target)) {
    refuse(path.string(), "is a device, a pipe or a socket; name a file");
  }
  if (!overwrite && fs::exists(fs::symlink_status(path, unknown))) refuse_to_replace(path.string());
  if (!fs::is_directory(folder_of(path), unknown)) {
    refuse(path.string(),
           fmt::format("there is no folder {}; create it first", folder_of(path).string()));
  }
}

}  // namespace

OutputFile::OutputFile(const fs::path& path, bool overwrite)
    : path_(path.string()), overwrite_(overwrite) {
  check_target(path, overwrite);
  for (int number = 0; fd_ < 0; ++number) {
    part_ = fmt::format("{}.part-{}-{}", path_, ::getpid(), number);
    fd_ = ::open(part_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0 && errno != EEXIST) {
      refuse(path_, fmt::format("cannot be created: {}; choose a folder that you may write to",
                                reason(errno)));
    }
  }
}

OutputFile::~OutputFile() {
  if (!committed_) ::unlink(part_.c_str());
  ::close(fd_);
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(bytes.size(), kBlock - pending_.size()));
    pending_.insert(pending_.end(), piece.begin(), piece.end());
    size_ += piece.size();
    bytes = bytes.subspan(piece.size());
    if (pending_.size() == kBlock) flush();
  }
}

void OutputFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  const auto on_disk = size_ - pending_.size();
  if (offset < on_disk) {
    const auto first = bytes.first(std::min<uint64_t>(bytes.size(), on_disk - offset));
    write_to_disk(offset, first);
    offset += first.size();
    bytes = bytes.subspan(first.size());
  }
  if (!bytes.empty()) std::memcpy(pending_.data() + (offset - on_disk), bytes.data(), bytes.size());
}

void OutputFile::flush() {
  write_to_disk(size_ - pending_.size(), pending_);
  pending_.clear();
}

void OutputFile::write_to_disk(uint64_t offset, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const auto written = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      refuse(path_, fmt::format("cannot be written: {}, after {} bytes; make room, or choose "
                                "another disk",
                                reason(errno), offset));
    }
    offset += static_cast<uint64_t>(written);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void OutputFile::commit() {
  flush();
  if (::fsync(fd_) != 0) {
    refuse(path_, fmt::format("cannot be brought to the disk: {}; make room, or choose another "
                              "disk",
                              reason(errno)));
  }
  publish();
  committed_ = true;
  // The name is in the folder's data. Not every file system can sync a folder, and the file is
  // whole whether or not its name survives a power cut.
  const int folder = ::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    ::fsync(folder);
    ::close(folder);
  }
}

void OutputFile::publish() const {
  int error = 0;
  if (!overwrite_) {
    // Atomic, so that a file which somebody else made meanwhile stays.
    if (::renameat2(AT_FDCWD, part_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE) == 0) {
      return;
    }
    error = errno;
    // Some network file systems do not know the flag.
    if (error == EINVAL || error == ENOSYS) {
      check_target(path_, overwrite_);
      error = 0;
    }
  }
  if (error == 0 && ::rename(part_.c_str(), path_.c_str()) != 0) error = errno;
  if (error == EEXIST) refuse_to_replace(path_);
  if (error != 0) {
    refuse(path_, fmt::format("cannot be given its name: {}; choose another one", reason(error)));
  }
}

}  // namespace gemma
