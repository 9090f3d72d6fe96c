#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/bad_files.h"
#include "tests/testing.h"

#include <gemma/checkpoint/output_file.h>

namespace gemma {
namespace {

namespace fs = std::filesystem;
using testing::contains;
using testing::message_of;

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class OutputFileTest : public ::testing::Test {
 protected:
  // Of all files in the folder.
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& file : fs::directory_iterator(folder_.path())) {
      names.push_back(file.path().filename().string());
    }
    return names;
  }

  std::string refusal(const fs::path& path, bool overwrite = false) const {
    return message_of<std::runtime_error>([&] { OutputFile(path, overwrite); });
  }

  const testing::TemporaryDirectory folder_;
  const fs::path path_ = folder_.path() / "model.ckpt";
  const std::vector<std::string> only_it_{"model.ckpt"};
};

TEST_F(OutputFileTest, HoldsWhatWasWritten) {
  OutputFile file(path_);
  file.write(bytes("one two"));
  file.write(bytes(" three"));
  file.write_at(4, bytes("TWO"));
  EXPECT_EQ(file.size(), 13U);
  file.commit();
  EXPECT_EQ(read(path_), "one TWO three");
  EXPECT_EQ(names(), only_it_);
}

TEST_F(OutputFileTest, HoldsWhatIsLargerThanABlock) {
  constexpr size_t kBlock = size_t{2} << 20;
  std::string want;
  OutputFile file(path_);
  for (const size_t size : {kBlock - 3, size_t{1}, size_t{7}, 2 * kBlock, kBlock, size_t{5}}) {
    const std::string piece(size, static_cast<char>('a' + want.size() % 26));
    file.write(bytes(piece));
    want += piece;
  }
  // On the disk already, not yet there, and half of each.
  for (const size_t offset : {size_t{10}, want.size() - 5, want.size() / kBlock * kBlock - 2}) {
    file.write_at(offset, bytes("12345"));
    want.replace(offset, 5, "12345");
  }
  EXPECT_EQ(file.size(), want.size());
  file.commit();
  EXPECT_TRUE(read(path_) == want);
}

TEST_F(OutputFileTest, HasItsNameOnlyOnceItIsComplete) {
  OutputFile file(path_);
  file.write(bytes("text"));
  ASSERT_EQ(names().size(), 1U);
  EXPECT_TRUE(names()[0].starts_with("model.ckpt.part-")) << names()[0];
  file.commit();
  EXPECT_EQ(names(), only_it_);
}

TEST_F(OutputFileTest, LeavesNothingWhenItIsNotCommitted) {
  try {
    OutputFile file(path_);
    file.write(bytes("text"));
    throw std::logic_error("in between");
  } catch (const std::logic_error&) {
  }
  EXPECT_TRUE(names().empty());
}

TEST_F(OutputFileTest, LeavesNothingUnderItsNameWhenTheProcessIsKilled) {
  const auto child = ::fork();
  if (child == 0) {
    OutputFile file(path_);
    file.write(bytes("text"));
    ::raise(SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_FALSE(fs::exists(path_));
  OutputFile file(path_);  // What the other left is not in the way.
  file.commit();
  EXPECT_TRUE(fs::exists(path_));
}

TEST_F(OutputFileTest, LeavesNothingWhenTheDiskIsFull) {
  // A limit on the size of files stands for the disk's.
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{.rlim_cur = 1000, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto message = message_of<std::runtime_error>([&] {
    OutputFile file(path_);
    file.write(bytes(std::string(2000, 'x')));
    file.commit();
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_TRUE(contains(message, path_.string() + ": cannot be written: File too large, after 1000 "
                                                 "bytes; make room"));
  EXPECT_TRUE(names().empty());
}

TEST_F(OutputFileTest, ReplacesAFileOnlyWhenItIsToldTo) {
  folder_.write("model.ckpt", "old");
  EXPECT_TRUE(contains(refusal(path_), "model.ckpt: is there already; choose another name"));
  EXPECT_EQ(read(path_), "old");
  {
    OutputFile file(path_, /*overwrite=*/true);
    file.write(bytes("new"));
    EXPECT_EQ(read(path_), "old");
    file.commit();
  }
  EXPECT_EQ(read(path_), "new");
  EXPECT_EQ(names(), only_it_);
}

TEST_F(OutputFileTest, KeepsTheOldFileWhenTheNewOneIsNotCommitted) {
  folder_.write("model.ckpt", "old");
  {
    OutputFile(path_, /*overwrite=*/true).write(bytes("new"));
  }
  EXPECT_EQ(read(path_), "old");
  EXPECT_EQ(names(), only_it_);
}

TEST_F(OutputFileTest, KeepsAFileThatAppearedMeanwhile) {
  const auto message = message_of<std::runtime_error>([&] {
    OutputFile file(path_);
    folder_.write("model.ckpt", "another's");
    file.commit();
  });
  EXPECT_TRUE(contains(message, "is there already"));
  EXPECT_EQ(read(path_), "another's");
  EXPECT_EQ(names(), only_it_);
}

TEST_F(OutputFileTest, RefusesALinkThatLeadsNowhere) {
  fs::create_symlink("nowhere", path_);
  EXPECT_TRUE(contains(refusal(path_), "is there already"));
}

TEST_F(OutputFileTest, SaysWhatIsWrongWithAPath) {
  EXPECT_TRUE(contains(refusal(folder_.path(), /*overwrite=*/true), "is a folder; name a file"));
  EXPECT_TRUE(contains(refusal("/dev/null", /*overwrite=*/true), "/dev/null: is a device"));
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_TRUE(contains(refusal(folder_.path() / "no" / "model.ckpt"),
                       "there is no folder " + (folder_.path() / "no").string() + "; create it"));
  // Nobody can make files there, root included.
  EXPECT_TRUE(contains(refusal("/proc/model.ckpt"), "/proc/model.ckpt: cannot be created: "));
}

TEST_F(OutputFileTest, IsWrittenToTheWorkingDirectoryByABareName) {
  const auto before = fs::current_path();
  fs::current_path(folder_.path());
  {
    OutputFile file("model.ckpt");
    file.commit();
  }
  fs::current_path(before);
  EXPECT_EQ(names(), only_it_);
}

}  // namespace
}  // namespace gemma
