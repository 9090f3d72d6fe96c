#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <stdexcept>
#include <system_error>
#include <unistd.h>

#include <fmt/format.h>

#include <gemma/checkpoint/output_directory.h>

namespace gemma {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const fs::path& path, std::string_view what) {
  throw std::runtime_error(fmt::format("{}: {}", path.string(), what));
}

void check_target(const fs::path& path, bool overwrite, std::string_view marker) {
  std::error_code unknown;  // Creating the directory explains what cannot be looked at.
  if (!fs::exists(fs::symlink_status(path, unknown))) return;
  if (!fs::is_directory(fs::symlink_status(path, unknown))) {
    refuse(path, "is there already, and no folder; choose another name");
  }
  if (fs::is_empty(path, unknown)) return;
  if (!overwrite) {
    refuse(path, "is there already; choose another name, or allow to replace it (--force)");
  }
  if (!fs::exists(path / marker, unknown)) {
    refuse(path, fmt::format("is a folder without {}, so it is not a model to be replaced; choose "
                             "another name",
                             marker));
  }
}

// "a/b/" names b.
fs::path without_slash(const fs::path& path) {
  return path.has_filename() ? path : path.parent_path();
}

}  // namespace

OutputDirectory::OutputDirectory(const fs::path& path, bool overwrite, std::string_view marker)
    : path_(without_slash(path)) {
  check_target(path_, overwrite, marker);
  std::error_code error;
  for (int number = 0; part_.empty(); ++number) {
    const fs::path candidate = fmt::format("{}.part-{}-{}", path_.string(), ::getpid(), number);
    if (fs::create_directory(candidate, error)) part_ = candidate;
    if (error) {
      refuse(path_, fmt::format("cannot be created: {}; choose a folder that is there and that you "
                                "may write to",
                                error.message()));
    }
  }
}

OutputDirectory::~OutputDirectory() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(part_, ignored);
}

void OutputDirectory::commit() {
  const auto rename = [&](unsigned flags) {
    return ::renameat2(AT_FDCWD, part_.c_str(), AT_FDCWD, path_.c_str(), flags) == 0;
  };
  // Onto nothing and onto an empty folder; else the two change places, and the old one goes.
  if (!rename(0)) {
    if ((errno != ENOTEMPTY && errno != EEXIST) || !rename(RENAME_EXCHANGE)) {
      refuse(path_, fmt::format("cannot be given its name: {}; choose another one",
                                std::generic_category().message(errno)));
    }
    std::error_code ignored;
    fs::remove_all(part_, ignored);
  }
  committed_ = true;
}

}  // namespace gemma
