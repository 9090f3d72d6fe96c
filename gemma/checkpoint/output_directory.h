#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace gemma {

/// A directory that appears under its name when it is complete, or never; what OutputFile is for a
/// file. Until then it is "<name>.part-<process>-<number>" beside it.
///
/// What fails throws std::runtime_error: one line with the directory, the reason and what to do.
class OutputDirectory {
 public:
  /// Throws also when something is there already, unless it is an empty directory, or `overwrite`
  /// is set and it is a directory that has a `marker` in it: nobody's home is replaced by a model.
  OutputDirectory(const std::filesystem::path& path, bool overwrite, std::string_view marker);
  /// Deletes what is in it, unless it was committed.
  ~OutputDirectory();
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;

  /// Where the files are put until then.
  const std::filesystem::path& part() const { return part_; }

  /// Gives the directory its name. What it replaces is deleted then.
  void commit();

 private:
  std::filesystem::path path_, part_;
  bool committed_ = false;
};

}  // namespace gemma
