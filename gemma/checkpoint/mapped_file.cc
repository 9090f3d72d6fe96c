#include <cerrno>
#include <fcntl.h>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <unistd.h>

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/mapped_file.h>

namespace gemma {
namespace {

class Descriptor {
 public:
  // O_NONBLOCK: opening a pipe that nobody writes to would otherwise wait for ever.
  explicit Descriptor(const char* path)
      : fd_(::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

std::string reason(int error) { return std::generic_category().message(error); }

[[noreturn]] void refuse(const std::string& path, std::string_view what) {
  throw std::runtime_error(about_file(path, what));
}

std::string_view kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path.string()) {
  const Descriptor file(path_.c_str());
  if (file.get() < 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      throw FileNotFound(about_file(path_, "there is no such file"));
    }
    refuse(path_, fmt::format("cannot be opened: {}", reason(errno)));
  }
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) {
    refuse(path_, fmt::format("cannot be examined: {}", reason(errno)));
  }
  if (!S_ISREG(status.st_mode)) {
    refuse(path_, fmt::format("is {}, not a file", kind_of(status.st_mode)));
  }
  if (status.st_size == 0) refuse(path_, "is empty (0 bytes): download it again");
  size_ = static_cast<size_t>(status.st_size);
  // MAP_NORESERVE: a private writable map of 54 GB must not be charged against free memory.
  void* const address = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE,
                               file.get(), /*offset=*/0);
  if (address == MAP_FAILED) {
    refuse(path_, fmt::format("{} bytes cannot be mapped: {}", size_, reason(errno)));
  }
  data_ = static_cast<std::byte*>(address);
  // Where the kernel knows huge pages of files, what is read from the disk comes in such.
  ::madvise(data_, size_, MADV_HUGEPAGE);
}

MappedFile::~MappedFile() { ::munmap(data_, size_); }

void MappedFile::release(size_t offset, size_t size) const {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = (offset + size) / page * page;
  if (begin < end) ::madvise(data_ + begin, end - begin, MADV_DONTNEED);
}

}  // namespace gemma
