#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/bad_files.h"

#include <gemma/checkpoint/crc32.h>
#include <gemma/checkpoint/mapped_file.h>
#include <gemma/checkpoint/zip.h>
#include <gemma/checkpoint/zip_writer.h>

namespace gemma {
namespace {

struct Record {
  std::string name, data;
};

Bytes bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string written(const std::vector<Record>& records) {
  const testing::TemporaryDirectory folder;
  const auto path = folder.path() / "archive.zip";
  OutputFile file(path);
  ZipWriter zip(file);
  for (const auto& record : records) zip.add(record.name, bytes(record.data));
  zip.finish();
  file.commit();
  return std::string(as_text(MappedFile(path).bytes()));
}

// Longer than the pieces in which data is written, and not a multiple of them.
std::string long_data() {
  std::string data;
  for (uint32_t i = 0; i < 700'000; ++i) data += testing::raw(i * 2654435761U);
  return data + "end";
}

std::vector<Record> some_records() {
  return {{"a/byteorder", "little"}, {"a/empty", ""}, {"a/long", long_data()}, {"a/ä", "x"}};
}

// One bit at a time, as the standard defines it.
uint32_t slow_crc32(std::string_view text) {
  uint32_t crc = ~0U;
  for (const char c : text) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0xedb88320U & (0U - (crc & 1U)));
  }
  return ~crc;
}

// 0xcbf43926 is the check value that descriptions of the algorithm give.
TEST(Crc32, IsTheOneOfZip) {
  EXPECT_EQ(crc32(bytes("123456789")), 0xcbf43926U);
  EXPECT_EQ(crc32({}), 0U);
  const std::string data = long_data().substr(0, 1000);
  for (size_t size = 0; size < 40; ++size) {
    EXPECT_EQ(crc32(bytes(data).first(size)), slow_crc32(data.substr(0, size))) << size;
  }
  EXPECT_EQ(crc32(bytes(data)), slow_crc32(data));
}

TEST(Crc32, GoesOnWhereItStopped) {
  for (size_t split = 0; split <= 9; ++split) {
    const Bytes text = bytes("123456789");
    EXPECT_EQ(crc32(text.subspan(split), crc32(text.first(split))), 0xcbf43926U);
  }
}

TEST(ZipWriter, WritesWhatTheReaderReads) {
  const auto records = some_records();
  const std::string file = written(records);
  const auto entries = read_zip_directory(bytes(file));
  ASSERT_EQ(entries.size(), records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    EXPECT_EQ(entries[i].name, records[i].name);
    EXPECT_TRUE(file.substr(entries[i].offset, entries[i].size) == records[i].data);
  }
}

TEST(ZipWriter, AlignsDataTo64Bytes) {
  std::vector<Record> records;
  for (size_t i = 0; i < 130; ++i)
    records.push_back({std::string(i + 1, 'n'), std::string(i, 'd')});
  for (const auto& entry : read_zip_directory(bytes(written(records)))) {
    EXPECT_EQ(entry.offset % 64, 0U) << entry.name;
  }
}

TEST(ZipWriter, WritesTheChecksumIntoBothHeaders) {
  const std::string file = written(some_records());
  size_t local = 0, central = 0;
  for (const auto& record : some_records()) {
    local = file.find("PK\3\4", local);
    central = file.find("PK\1\2", central);
    const auto want = slow_crc32(record.data);
    EXPECT_EQ(load<uint32_t>(bytes(file), local + 14, "crc"), want) << record.name;
    EXPECT_EQ(load<uint32_t>(bytes(file), central + 16, "crc"), want) << record.name;
    local += 4;
    central += 4;
  }
}

TEST(ZipWriter, CountsMoreEntriesThanTheOldEndRecordCan) {
  std::vector<Record> records;
  for (int i = 0; i < 70'000; ++i) records.push_back({std::to_string(i), "x"});
  const std::string file = written(records);
  EXPECT_EQ(read_zip_directory(bytes(file)).size(), 70'000U);
  EXPECT_EQ(load<uint16_t>(bytes(file), file.size() - 12, "entries"), 0xffff);
}

TEST(ZipWriter, WritesTheSameBytesForTheSameEntries) {
  EXPECT_TRUE(written(some_records()) == written(some_records()));
}

}  // namespace
}  // namespace gemma
