#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/testing.h"

#include <gemma/checkpoint/output_directory.h>

namespace gemma {
namespace {

namespace fs = std::filesystem;
using testing::contains;
using testing::message_of;

constexpr auto kMarker = "config.json";

void write(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }

std::string read(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

class OutputDirectoryTest : public ::testing::Test {
 protected:
  // Of all that is in the folder around it.
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path())) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

  void make_model(const std::string& text) const {
    fs::create_directory(path_);
    write(path_ / kMarker, text);
  }

  std::string refusal(bool overwrite) const {
    return message_of<std::runtime_error>([&] { OutputDirectory(path_, overwrite, kMarker); });
  }

  const testing::TemporaryDirectory folder_;
  const fs::path path_ = folder_.path() / "model";
  const std::vector<std::string> only_it_{"model"};
};

TEST_F(OutputDirectoryTest, AppearsWhenItIsComplete) {
  for (const auto* slash : {"", "/"}) {
    OutputDirectory directory(path_.string() + slash, /*overwrite=*/true, kMarker);
    write(directory.part() / kMarker, "new");
    EXPECT_NE(directory.part(), path_);
    EXPECT_FALSE(fs::exists(path_) && read(path_ / kMarker) == "new");
    directory.commit();
    EXPECT_EQ(read(path_ / kMarker), "new");
    EXPECT_EQ(names(), only_it_);
    write(path_ / kMarker, "old");
  }
}

TEST_F(OutputDirectoryTest, LeavesNothingWithoutACommit) {
  {
    write(OutputDirectory(path_, false, kMarker).part() / kMarker, "new");
  }
  EXPECT_TRUE(names().empty());
}

TEST_F(OutputDirectoryTest, ReplacesAllOfAModelButOnlyWhenToldTo) {
  make_model("old");
  write(path_ / "model-00007-of-00009.safetensors", "old");
  EXPECT_TRUE(contains(refusal(/*overwrite=*/false), "is there already"));
  {
    const OutputDirectory not_committed(path_, /*overwrite=*/true, kMarker);
    write(not_committed.part() / kMarker, "new");
  }
  EXPECT_EQ(read(path_ / kMarker), "old");
  OutputDirectory directory(path_, /*overwrite=*/true, kMarker);
  write(directory.part() / kMarker, "new");
  directory.commit();
  EXPECT_EQ(read(path_ / kMarker), "new");
  EXPECT_FALSE(fs::exists(path_ / "model-00007-of-00009.safetensors"));
  EXPECT_EQ(names(), only_it_);
}

TEST_F(OutputDirectoryTest, TakesTheNameOfAnEmptyFolder) {
  fs::create_directory(path_);
  OutputDirectory directory(path_, /*overwrite=*/false, kMarker);
  write(directory.part() / kMarker, "new");
  directory.commit();
  EXPECT_EQ(read(path_ / kMarker), "new");
}

TEST_F(OutputDirectoryTest, ReplacesNothingButAModel) {
  fs::create_directory(path_);
  write(path_ / "letter.txt", "dear");
  EXPECT_TRUE(contains(refusal(/*overwrite=*/true), "is a folder without config.json"));
  EXPECT_EQ(read(path_ / "letter.txt"), "dear");
  fs::remove_all(path_);
  write(path_, "a file");
  EXPECT_TRUE(contains(refusal(/*overwrite=*/true), "is there already, and no folder"));
  EXPECT_EQ(names(), only_it_);
  fs::remove(path_);
  fs::create_directory_symlink(folder_.path(), path_);
  EXPECT_TRUE(contains(refusal(/*overwrite=*/true), "is there already, and no folder"));
}

TEST_F(OutputDirectoryTest, SaysWhyItCannotBeMade) {
  const auto message = message_of<std::runtime_error>(
      [&] { OutputDirectory(folder_.path() / "absent" / "model", false, kMarker); });
  EXPECT_TRUE(contains(message, "absent/model: cannot be created: No such file or directory"));
  EXPECT_TRUE(names().empty());
}

}  // namespace
}  // namespace gemma
