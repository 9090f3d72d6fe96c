#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unistd.h>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "tests/bad_files.h"

#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/mapped_file.h>

namespace gemma {
namespace {

using testing::TemporaryDirectory;

std::string content_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void expect_refused(const std::filesystem::path& path, std::string_view expected) {
  try {
    const MappedFile file(path);
    ADD_FAILURE() << path << " was mapped";
  } catch (const std::runtime_error& error) {
    testing::expect_message(error.what(), path.string() + ": ", expected);
  }
}

TEST(MappedFile, HasTheBytesOfTheFile) {
  const TemporaryDirectory directory;
  const auto path = directory.write("weights", "hello");
  const MappedFile file(path);
  EXPECT_EQ(file.path(), path.string());
  ASSERT_EQ(file.bytes().size(), 5U);
  EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(file.data()), 5), "hello");
  EXPECT_EQ(static_cast<const void*>(file.bytes().data()), file.data());
}

TEST(MappedFile, KeepsWritesFromReachingTheFile) {
  const TemporaryDirectory directory;
  const auto path = directory.write("weights", "hello");
  const MappedFile file(path);
  file.data()[0] = std::byte{'J'};
  EXPECT_EQ(static_cast<char>(file.bytes()[0]), 'J');
  EXPECT_EQ(content_of(path), "hello");
}

TEST(MappedFile, ReleaseBringsBackWhatTheFileHolds) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const TemporaryDirectory directory;
  const MappedFile file(directory.write("weights", std::string(3 * page, 'a')));
  for (const size_t at : {page - 1, page, 3 * page - 1}) file.data()[at] = std::byte{'b'};
  file.release(/*offset=*/1, /*size=*/2 * page);  // Of the pages it touches, one lies within.
  EXPECT_EQ(static_cast<char>(file.bytes()[page - 1]), 'b');
  EXPECT_EQ(static_cast<char>(file.bytes()[page]), 'a');
  EXPECT_EQ(static_cast<char>(file.bytes()[3 * page - 1]), 'b');
}

TEST(MappedFile, FollowsASymlink) {
  const TemporaryDirectory directory;
  directory.write("blob", "hello");
  std::filesystem::create_symlink("blob", directory.path() / "link");
  EXPECT_EQ(MappedFile(directory.path() / "link").bytes().size(), 5U);
}

TEST(MappedFile, OutlivesTheFilesName) {
  const TemporaryDirectory directory;
  const auto path = directory.write("weights", "hello");
  const MappedFile file(path);
  std::filesystem::remove(path);
  EXPECT_EQ(static_cast<char>(file.bytes()[4]), 'o');
}

TEST(MappedFile, ThrowsFileNotFoundForWhatIsNotThere) {
  const TemporaryDirectory directory;
  const auto file = directory.write("file", "x");
  std::filesystem::create_symlink("nowhere", directory.path() / "dangling");
  for (const auto& path : {directory.path() / "missing", directory.path() / "dangling",
                           directory.path() / "no" / "folder", file / "below"}) {
    EXPECT_THROW(MappedFile{path}, FileNotFound) << path;
    expect_refused(path, "no such file");
  }
}

TEST(MappedFile, RefusesAnEmptyFile) {
  const TemporaryDirectory directory;
  expect_refused(directory.write("empty", ""), "is empty");
}

TEST(MappedFile, RefusesADirectory) {
  const TemporaryDirectory directory;
  expect_refused(directory.path(), "is a directory");
}

TEST(MappedFile, RefusesAPipeWithoutWaitingForAWriter) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "pipe";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  expect_refused(path, "is a pipe");
}

TEST(MappedFile, RefusesADevice) { expect_refused("/dev/zero", "is a device"); }

TEST(MappedFile, RefusesASocket) {
  const TemporaryDirectory directory;
  const std::string path = (directory.path() / "socket").string();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.size(), sizeof(address.sun_path));
  path.copy(address.sun_path, path.size());
  const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  expect_refused(path, "cannot be opened");
  ::close(socket);
}

TEST(MappedFile, RefusesAFileItMayNotRead) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read every file";
  const TemporaryDirectory directory;
  const auto path = directory.write("secret", "x");
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  expect_refused(path, "cannot be opened: Permission denied");
}

TEST(MappedFile, RefusesALoopOfSymlinks) {
  const TemporaryDirectory directory;
  std::filesystem::create_symlink("loop", directory.path() / "loop");
  expect_refused(directory.path() / "loop", "cannot be opened");
}

}  // namespace
}  // namespace gemma
