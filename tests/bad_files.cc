#include "tests/bad_files.h"

#include <bit>
#include <fstream>
#include <ostream>
#include <stdexcept>
#include <stdlib.h>
#include <system_error>

#include <gtest/gtest.h>

#include <gemma/checkpoint/torch_archive.h>

namespace gemma::testing {
namespace {

constexpr uint16_t kSizesFollow = 0x0808;  // And names are UTF-8: the flags torch.save sets.

// The padding goes into an extra field tagged "FB", as in caffe2/serialize/inline_container.cc.
std::string padding_field(size_t data_at, size_t alignment) {
  if (alignment == 1) return {};
  const size_t size = (alignment - (data_at + 4) % alignment) % alignment;
  return "FB" + raw(static_cast<uint16_t>(size)) + std::string(size, 'Z');
}

std::string local_header(const ZipRecord& record, size_t at, const ZipOptions& options) {
  const auto size = options.sizes_follow ? 0U : static_cast<uint32_t>(record.data.size());
  const std::string extra = padding_field(at + 30 + record.name.size(), options.alignment);
  return "PK\3\4" + raw<uint16_t>(0) + raw<uint16_t>(options.sizes_follow ? kSizesFollow : 0) +
         raw<uint16_t>(0) + raw<uint32_t>(0) + raw<uint32_t>(0) + raw(size) + raw(size) +
         raw(static_cast<uint16_t>(record.name.size())) + raw(static_cast<uint16_t>(extra.size())) +
         record.name + extra;
}

std::string central_header(const ZipRecord& record, size_t local, const ZipOptions& options) {
  const uint64_t size = record.data.size();
  std::string extra = options.extra;
  if (options.zip64) {
    extra += raw<uint16_t>(1) + raw<uint16_t>(24) + raw(size) + raw(size) + raw(uint64_t{local});
  }
  const auto narrow = [&](uint64_t value) {
    return options.zip64 ? uint32_t{0xffffffff} : static_cast<uint32_t>(value);
  };
  return "PK\1\2" + raw<uint16_t>(0) + raw<uint16_t>(0) +
         raw<uint16_t>(options.sizes_follow ? kSizesFollow : 0) + raw<uint16_t>(0) +
         raw<uint32_t>(0) + raw<uint32_t>(0) + raw(narrow(size)) + raw(narrow(size)) +
         raw(static_cast<uint16_t>(record.name.size())) + raw(static_cast<uint16_t>(extra.size())) +
         raw<uint16_t>(0) + raw<uint16_t>(0) + raw<uint16_t>(0) + raw<uint32_t>(0) +
         raw(narrow(local)) + record.name + extra;
}

void write_end(Zip& zip, size_t directory, const ZipOptions& options) {
  const uint64_t size = zip.bytes.size() - directory;
  const uint64_t count = zip.local.size();
  if (options.zip64) {
    zip.end64 = zip.bytes.size();
    zip.bytes += "PK\6\6" + raw<uint64_t>(44) + raw<uint16_t>(45) + raw<uint16_t>(45) +
                 raw<uint32_t>(0) + raw<uint32_t>(0) + raw(count) + raw(count) + raw(size) +
                 raw(uint64_t{directory});
    zip.locator = zip.bytes.size();
    zip.bytes += "PK\6\7" + raw<uint32_t>(0) + raw(uint64_t{zip.end64}) + raw<uint32_t>(1);
  }
  zip.end = zip.bytes.size();
  const auto count16 = options.zip64 ? uint16_t{0xffff} : static_cast<uint16_t>(count);
  zip.bytes += "PK\5\6" + raw<uint16_t>(0) + raw<uint16_t>(0) + raw(count16) + raw(count16) +
               raw(options.zip64 ? uint32_t{0xffffffff} : static_cast<uint32_t>(size)) +
               raw(options.zip64 ? uint32_t{0xffffffff} : static_cast<uint32_t>(directory)) +
               raw(static_cast<uint16_t>(options.comment.size())) + options.comment;
}

std::string marked(const std::vector<std::string>& items, char last) {
  std::string code = "(";
  for (const std::string& item : items) code += item;
  return code + last;
}

}  // namespace

Zip write_zip(const std::vector<ZipRecord>& records, const ZipOptions& options) {
  Zip zip;
  for (const ZipRecord& record : records) {
    zip.local.push_back(zip.bytes.size());
    zip.bytes += local_header(record, zip.bytes.size(), options) + record.data;
    if (options.sizes_follow) zip.bytes += "PK\7\10" + std::string(12, '\0');
  }
  const size_t directory = zip.bytes.size();
  zip.central.reserve(records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    zip.central.push_back(zip.bytes.size());
    zip.bytes += central_header(records[i], zip.local[i], options);
  }
  write_end(zip, directory, options);
  return zip;
}

namespace op {

std::string none() { return "N"; }
std::string boolean(bool value) { return value ? "\x88" : "\x89"; }

std::string integer(int64_t value) {
  if (value >= 0 && value < 256) return "K" + raw(static_cast<uint8_t>(value));
  if (value >= 0 && value < 65536) return "M" + raw(static_cast<uint16_t>(value));
  if (value == static_cast<int32_t>(value)) return "J" + raw(static_cast<int32_t>(value));
  return "\x8a\x08" + raw(value);
}

std::string real(double value) {
  std::string digits = raw(std::bit_cast<uint64_t>(value));
  return "G" + std::string(digits.rbegin(), digits.rend());
}

std::string text(std::string_view value) {
  return "X" + raw(static_cast<uint32_t>(value.size())) + std::string(value);
}

std::string global(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}

std::string tuple(std::initializer_list<std::string> items) { return marked(items, 't'); }

std::string numbers(const std::vector<int64_t>& values) {
  std::vector<std::string> items;
  items.reserve(values.size());
  for (const int64_t value : values) items.push_back(integer(value));
  return marked(items, 't');
}

std::string dict(const std::vector<std::string>& keys_and_values) {
  return "}" + marked(keys_and_values, 'u');
}

std::string ordered_dict(const std::vector<std::string>& keys_and_values) {
  return call(global("collections", "OrderedDict"), ")") + marked(keys_and_values, 'u');
}

std::string call(const std::string& function, const std::string& arguments) {
  return function + arguments + "R";
}

std::string storage(const TensorSpec& spec) {
  return tuple({text("storage"), global("torch", spec.storage), text(spec.key), text("cpu"),
                integer(spec.numel)}) +
         "Q";
}

std::string tensor(const TensorSpec& spec) {
  return call(global("torch._utils", "_rebuild_tensor_v2"),
              tuple({storage(spec), integer(spec.offset), numbers(spec.sizes),
                     numbers(spec.strides), boolean(false), ordered_dict({})}));
}

}  // namespace op

std::string pickle_of(const std::string& value) { return "\x80\x02" + value + "."; }

std::vector<ZipRecord> torch_records(const std::string& pickle,
                                     const std::vector<std::string>& data) {
  std::vector<ZipRecord> records = {{"model/data.pkl", pickle}, {"model/byteorder", "little"}};
  for (size_t i = 0; i < data.size(); ++i) {
    records.push_back({"model/data/" + std::to_string(i), data[i]});
  }
  records.push_back({"model/version", "3\n"});
  return records;
}

std::string torch_file(const std::string& pickle,
                       const std::vector<std::string>& data,
                       const ZipOptions& options) {
  return write_zip(torch_records(pickle, data), options).bytes;
}

std::string small_torch_file() {
  return torch_file(pickle_of(op::dict({op::text("w"), op::tensor()})), {floats({1, 2, 3})});
}

std::string floats(const std::vector<float>& values) {
  std::string bytes;
  for (const float value : values) bytes += raw(value);
  return bytes;
}

std::ostream& operator<<(std::ostream& out, const BadFile& file) { return out << file.name; }

void expect_message(std::string_view message, std::string_view path, std::string_view expected) {
  EXPECT_TRUE(message.starts_with(path)) << message;
  EXPECT_EQ(message.find_first_of("\n\r\t\x1b"), std::string_view::npos) << message;
  EXPECT_NE(message.find(expected), std::string_view::npos)
      << "got:  " << message << "\nwant: " << expected;
}

void expect_refused(const BadFile& file) {
  try {
    read_torch_archive(as_bytes(file.bytes), "folder/bad.ckpt");
    ADD_FAILURE() << "was read without complaint";
  } catch (const std::runtime_error& error) {
    expect_message(error.what(), "folder/bad.ckpt: ", file.expected);
  }
}

TemporaryDirectory::TemporaryDirectory() {
  std::string name = (std::filesystem::temp_directory_path() / "gemma_test_XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed: " + name);
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::filesystem::path TemporaryDirectory::write(std::string_view name,
                                                std::string_view bytes) const {
  const std::filesystem::path path = path_ / name;
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

}  // namespace gemma::testing
