#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <initializer_list>
#include <iosfwd>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// Writes the files the checkpoint tests read, good and bad, byte by byte: a writer that refuses to
// lie, such as torch.save, cannot make the bad ones.
namespace gemma::testing {

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

/// `value` as little-endian bytes.
template <typename T>
std::string raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

/// `file` with the bytes from `at` on replaced by those of `value`.
template <typename T>
std::string patched(std::string file, size_t at, T value) {
  std::memcpy(file.data() + at, &value, sizeof(T));
  return file;
}

struct ZipRecord {
  std::string name;
  std::string data;
};

struct ZipOptions {
  size_t alignment = 64;     // Of each record's data, as torch.save pads; 1 does not pad.
  bool sizes_follow = true;  // As torch.save: no sizes in local headers.
  bool zip64 = false;        // 64-bit fields throughout, as in files above 4 GiB.
  std::string extra = {};    // Before other extra fields of the directory.
  std::string comment = {};
};

/// A zip archive and where its parts are, for tests that damage them.
struct Zip {
  std::string bytes;
  std::vector<size_t> local;    // Local headers, one a record.
  std::vector<size_t> central;  // Their headers in the directory.
  size_t end64 = 0;             // Only with ZipOptions::zip64.
  size_t locator = 0;           // Only with ZipOptions::zip64.
  size_t end = 0;
};
Zip write_zip(const std::vector<ZipRecord>& records, const ZipOptions& options = {});

// Pieces of pickles: each string of instructions leaves one value on the stack.
namespace op {
std::string none();
std::string boolean(bool value);
std::string integer(int64_t value);
std::string real(double value);
std::string text(std::string_view value);
std::string global(std::string_view module, std::string_view name);
std::string tuple(std::initializer_list<std::string> items);
std::string numbers(const std::vector<int64_t>& values);            // A tuple of them.
std::string dict(const std::vector<std::string>& keys_and_values);  // A plain dict.
std::string ordered_dict(const std::vector<std::string>& keys_and_values);
std::string call(const std::string& function, const std::string& arguments);

struct TensorSpec {
  std::vector<int64_t> sizes = {3};
  std::vector<int64_t> strides = {1};
  int64_t offset = 0;
  std::string key = "0";
  int64_t numel = 3;
  std::string storage = "FloatStorage";
};
std::string storage(const TensorSpec& spec);
std::string tensor(const TensorSpec& spec = {});
}  // namespace op

/// PROTO 2, `value`, STOP.
std::string pickle_of(const std::string& value);

/// What torch.save would write: data.pkl, the records data/0, data/1, ... and the two small ones.
std::vector<ZipRecord> torch_records(const std::string& pickle,
                                     const std::vector<std::string>& data);
std::string torch_file(const std::string& pickle,
                       const std::vector<std::string>& data,
                       const ZipOptions& options = {});
/// One float tensor 'w' = {1, 2, 3}.
std::string small_torch_file();
std::string floats(const std::vector<float>& values);

/// A file that read_torch_archive must refuse, and a part of the message it must give.
struct BadFile {
  std::string name;
  std::string bytes;
  std::string expected;
};
std::ostream& operator<<(std::ostream& out, const BadFile& file);
void expect_refused(const BadFile& file);
/// Whether `message` is one line that starts with "<path>" and contains `expected`.
void expect_message(std::string_view message, std::string_view path, std::string_view expected);

/// A directory that exists as long as the object.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(std::string_view name, std::string_view bytes) const;

 private:
  std::filesystem::path path_;
};

}  // namespace gemma::testing
