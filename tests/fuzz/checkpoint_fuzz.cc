// The checkpoint parsers on any bytes: they answer or throw std::runtime_error with one line, and
// what they answer lies inside the bytes. Without LibTorch, so a run makes some thousand files a
// second.
//
//   python tests/fuzz/make_corpus.py corpus
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
//     -DFMT_HEADER_ONLY -I. -isystem <torch/include> tests/fuzz/checkpoint_fuzz.cc
//     gemma/checkpoint/{errors,foreign_format,pickle,shard_index,torch_archive,zip}.cc
//   ./a.out -dict=tests/fuzz/checkpoint.dict -max_len=65536 corpus

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gemma/checkpoint/bytes.h>
#include <gemma/checkpoint/shard_index.h>
#include <gemma/checkpoint/torch_archive.h>

namespace {

void require(bool condition) {
  if (!condition) __builtin_trap();
}

void check_message(std::string_view message) {
  require(message.find_first_of("\n\r\x1b") == std::string_view::npos);
  require(message.size() < 2000);
}

// Reads every byte, so that a range outside the input is a report of the address sanitizer.
void touch(gemma::Bytes bytes) {
  uint64_t sum = 0;
  for (const std::byte byte : bytes) sum += std::to_integer<uint64_t>(byte);
  [[maybe_unused]] volatile const uint64_t keep = sum;
}

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

// An archive with this pickle and four records, for mutations that would not leave a zip whole.
std::string archive_around(std::string_view pickle) {
  const std::array<std::pair<std::string_view, std::string>, 5> records = {{
      {"m/data.pkl", std::string(pickle)},
      {"m/data/0", std::string(12, 'x')},
      {"m/data/1", std::string(96, 'x')},
      {"m/data/2", std::string(24, 'x')},
      {"m/data/3", std::string()},
  }};
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

void read_and_check(gemma::Bytes file) {
  for (const auto& entry : gemma::read_torch_archive(file, "x")) check_entry(entry, file);
}

template <typename Parse>
void run(Parse parse) {
  try {
    parse();
  } catch (const std::runtime_error& error) {
    check_message(error.what());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const gemma::Bytes bytes = std::as_bytes(std::span(data, size));
  run([&] { read_and_check(bytes); });
  if (size > 0 && data[0] == 0x80) {
    const std::string archive = archive_around(gemma::as_text(bytes));
    // Of its own size, so that the sanitizer sees one byte too many.
    const std::vector<char> exact(archive.begin(), archive.end());
    run([&] { read_and_check(std::as_bytes(std::span(exact))); });
  }
  if (size > 0 && data[0] == '{') {
    run([&] { gemma::read_shard_index(gemma::as_text(bytes), "x"); });
  }
  return 0;
}
