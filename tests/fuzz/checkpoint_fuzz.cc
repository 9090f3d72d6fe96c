// The checkpoint parsers on any bytes: they answer or throw std::runtime_error with one line, and
// what they answer lies inside the bytes. Without LibTorch, so a run makes some thousand files a
// second.

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/fuzz/checks.h"

#include <gemma/checkpoint/bytes.h>
#include <gemma/checkpoint/npz.h>
#include <gemma/checkpoint/shard_index.h>
#include <gemma/checkpoint/torch_archive.h>

namespace {

using gemma::fuzz::require;
using gemma::fuzz::run;
using gemma::fuzz::touch;

// Recomputes, more simply than the reader did, the last byte that the strides reach.
void check_entry(const gemma::TensorEntry& entry, gemma::Bytes file) {
  require(entry.sizes.size() == entry.strides.size() && entry.sizes.size() <= 8);
  require(gemma::fits(entry.offset, entry.nbytes, file.size()));
  touch(file.subspan(entry.offset, entry.nbytes));
  uint64_t last = 0;
  bool is_empty = false;
  for (size_t d = 0; d < entry.sizes.size(); ++d) {
    require(entry.sizes[d] >= 0 && entry.strides[d] >= 0);
    is_empty = is_empty || entry.sizes[d] == 0;
    last += static_cast<uint64_t>(entry.sizes[d] - 1) * static_cast<uint64_t>(entry.strides[d]);
  }
  require(is_empty ? entry.nbytes == 0 : last < entry.nbytes);
}

template <typename T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

using Record = std::pair<std::string_view, std::string>;

// An archive for mutations that would not leave a zip whole.
std::string archive_of(std::initializer_list<Record> records) {
  std::string file;
  std::string directory;
  for (const auto& [name, data] : records) {
    const auto size = static_cast<uint32_t>(data.size());
    std::string common(12, '\0');  // Flags, method, time, date and checksum.
    append(common, size);
    append(common, size);
    append(common, static_cast<uint16_t>(name.size()));
    append(common, uint16_t{0});
    directory.append("PK\1\2\0\0\0\0", 8).append(common).append(10, '\0');
    append(directory, static_cast<uint32_t>(file.size()));
    directory += name;
    file.append("PK\3\4\0\0", 6).append(common).append(name).append(data);
  }
  const auto offset = static_cast<uint32_t>(file.size());
  file.append(directory).append("PK\5\6\0\0\0\0", 8);
  append(file, static_cast<uint16_t>(records.size()));
  append(file, static_cast<uint16_t>(records.size()));
  append(file, static_cast<uint32_t>(directory.size()));
  append(file, offset);
  append(file, uint16_t{0});
  return file;
}

// With this pickle and four records.
std::string archive_around(std::string_view pickle) {
  return archive_of({{"m/data.pkl", std::string(pickle)},
                     {"m/data/0", std::string(12, 'x')},
                     {"m/data/1", std::string(96, 'x')},
                     {"m/data/2", std::string(24, 'x')},
                     {"m/data/3", std::string()}});
}

void read_npz_and_check(gemma::Bytes file) {
  for (const auto& entry : gemma::read_npz(file, "x")) check_entry(entry, file);
}

// Of its own size, so that the sanitizer sees one byte too many.
template <typename Check>
void run_on(const std::string& archive, Check check) {
  const std::vector<char> exact(archive.begin(), archive.end());
  run([&] { check(std::as_bytes(std::span(exact))); });
}

void read_and_check(gemma::Bytes file) {
  const auto archive = gemma::read_torch_archive(file, "x");
  for (const auto& entry : archive.tensors) check_entry(entry, file);
  if (archive.config) touch(std::as_bytes(std::span(*archive.config)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const gemma::Bytes bytes = std::as_bytes(std::span(data, size));
  run([&] { read_and_check(bytes); });
  if (size > 0 && data[0] == 0x80) {
    run_on(archive_around(gemma::as_text(bytes)), read_and_check);
  }
  if (gemma::is_npz(bytes)) run([&] { read_npz_and_check(bytes); });
  if (gemma::is_npy(bytes)) run([&] { check_entry(gemma::read_npy(bytes, "x"), bytes); });
  if (size > 0 && data[0] == 0x93) {
    run_on(archive_of({{"a.npy", std::string(gemma::as_text(bytes))}}), read_npz_and_check);
  }
  if (size > 0 && data[0] == '{') {
    run([&] { gemma::read_shard_index(gemma::as_text(bytes), "x"); });
  }
  return 0;
}
