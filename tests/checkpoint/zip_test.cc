#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/bad_files.h"

#include <gemma/checkpoint/zip.h>

namespace gemma {
namespace {

using testing::BadFile;
using testing::patched;
using testing::write_zip;
using testing::Zip;
using testing::ZipOptions;
using testing::ZipRecord;

const std::vector<ZipRecord> kRecords = {{"model/data.pkl", "abc"}, {"model/data/0", "0123456789"}};

std::vector<std::string> contents_of(std::string_view zip) {
  std::vector<std::string> contents;
  for (const ZipEntry& entry : read_zip_directory(testing::as_bytes(zip))) {
    contents.push_back(entry.name + "=" + std::string(zip.substr(entry.offset, entry.size)));
  }
  return contents;
}

const std::vector<std::string> kContents = {"model/data.pkl=abc", "model/data/0=0123456789"};

TEST(Zip, FindsNamesAndDataInDirectoryOrder) {
  EXPECT_EQ(contents_of(write_zip(kRecords).bytes), kContents);
}

TEST(Zip, FindsDataBehindThePaddingOfLocalHeaders) {
  for (const ZipEntry& entry : read_zip_directory(testing::as_bytes(write_zip(kRecords).bytes))) {
    EXPECT_EQ(entry.offset % 64, 0U) << entry.name;
  }
}

TEST(Zip, ReadsTheFormsOtherWritersUse) {
  for (const ZipOptions& options :
       {ZipOptions{.alignment = 1}, ZipOptions{.sizes_follow = false}, ZipOptions{.zip64 = true},
        ZipOptions{.comment = "a comment"}}) {
    EXPECT_EQ(contents_of(write_zip(kRecords, options).bytes), kContents);
  }
}

TEST(Zip, AllowsTheLargestCommentAndOneThatLooksLikeAnEnd) {
  EXPECT_EQ(contents_of(write_zip(kRecords, {.comment = std::string(0xffff, 'x')}).bytes),
            kContents);
  const std::string like_an_end = "PK\5\6" + std::string(30, 'x');
  EXPECT_EQ(contents_of(write_zip(kRecords, {.comment = like_an_end}).bytes), kContents);
}

TEST(Zip, AllowsAnArchiveWithoutEntries) { EXPECT_TRUE(contents_of(write_zip({}).bytes).empty()); }

TEST(Zip, AllowsEmptyEntriesSideBySide) {
  EXPECT_EQ(contents_of(write_zip({{"a", ""}, {"b", ""}}).bytes),
            (std::vector<std::string>{"a=", "b="}));
}

TEST(Zip, ReadsMoreEntriesThanSixteenBitsCount) {
  std::vector<ZipRecord> records;
  records.reserve(70000);
  for (int i = 0; i < 70000; ++i) records.push_back({"x/" + std::to_string(i), ""});
  EXPECT_EQ(contents_of(write_zip(records, {.zip64 = true}).bytes).size(), 70000U);
}

TEST(Zip, SkipsExtraFieldsItDoesNotKnow) {
  const std::string time_stamp = "UT" + testing::raw<uint16_t>(5) + "\1abcd";
  EXPECT_EQ(contents_of(write_zip(kRecords, {.zip64 = true, .extra = time_stamp}).bytes),
            kContents);
}

std::string cut(const std::string& file, size_t size) { return file.substr(0, size); }

std::string with_byte_after(const std::string& file) { return file + "x"; }

// Offsets are those of PKWARE's APPNOTE.TXT, 4.3.7 (local), 4.3.12 (central) and 4.3.16 (end).
std::vector<BadFile> damaged_headers() {
  const Zip zip = write_zip(kRecords);
  const Zip sized = write_zip(kRecords, {.sizes_follow = false});
  const size_t second = zip.central[1];
  return {
      {"LocalSignature", patched(zip.bytes, zip.local[1], 'x'), "has no header at byte"},
      {"LocalName", patched(zip.bytes, zip.local[1] + 30, 'x'), "calls itself 'xodel/data/0'"},
      {"LocalNameLength", patched<uint16_t>(zip.bytes, zip.local[1] + 26, 11), "calls itself"},
      {"LocalNamePastTheEnd", patched<uint16_t>(zip.bytes, zip.local[1] + 26, 0xffff),
       "would take"},
      {"LocalExtraPastTheEnd", patched<uint16_t>(zip.bytes, zip.local[1] + 28, 0xffff),
       "would take bytes"},
      {"LocalSize", patched<uint32_t>(sized.bytes, sized.local[1] + 22, 9),
       "10 bytes in the directory and 9 in its own header"},
      {"LocalMethod", patched<uint16_t>(zip.bytes, zip.local[1] + 8, 8), "is compressed"},
      {"LocalEncrypted", patched<uint16_t>(zip.bytes, zip.local[1] + 6, 9), "is encrypted"},
      {"CentralSignature", patched(zip.bytes, second, 'x'), "zip directory is damaged at byte"},
      {"Deflated", patched<uint16_t>(zip.bytes, second + 10, 8), "is compressed (zip method 8)"},
      {"UnknownMethod", patched<uint16_t>(zip.bytes, second + 10, 99), "(zip method 99)"},
      {"Encrypted", patched<uint16_t>(zip.bytes, second + 8, 1), "is encrypted"},
      {"StronglyEncrypted", patched<uint16_t>(zip.bytes, second + 8, 0x40), "is encrypted"},
      {"MaskedHeaders", patched<uint16_t>(zip.bytes, second + 8, 0x2000), "is encrypted"},
      {"OtherDisk", patched<uint16_t>(zip.bytes, second + 34, 1), "on another disk"},
      {"TwoSizes", patched<uint32_t>(zip.bytes, second + 20, 9), "has 10 bytes in 9"},
      {"SizePastTheEnd", patched<uint64_t>(zip.bytes, second + 20, 0x7fff'ffff'7fff'ffff),
       "would take bytes"},
      {"OffsetPastTheEnd", patched<uint32_t>(zip.bytes, second + 42, 0x7fffffff),
       "would take bytes 2147483647+30"},
      {"OffsetOfAnotherEntry", patched<uint32_t>(zip.bytes, second + 42, 0), "calls itself"},
      {"CentralNamePastTheEnd", patched<uint16_t>(zip.bytes, second + 28, 0xffff),
       "a name in its directory would take"},
      {"CentralExtraPastTheEnd", patched<uint16_t>(zip.bytes, second + 30, 0xffff),
       "an extra field in its directory would take"},
      {"CentralCommentPastTheEnd", patched<uint16_t>(zip.bytes, second + 32, 0xffff),
       "bytes after its 2 entries"},
      {"SixtyFourBitSizeMissing", patched<uint64_t>(zip.bytes, second + 20, UINT64_MAX),
       "would take bytes"},
  };
}

std::vector<BadFile> damaged_ends() {
  const Zip zip = write_zip(kRecords);
  const Zip one_more = write_zip({{"model/data.pkl", "abc"}});
  return {
      {"EndMissing", cut(zip.bytes, zip.end), "the end of the zip archive is missing"},
      {"EndCutShort", cut(zip.bytes, zip.end + 21), "the file is truncated"},
      {"CutInTheDirectory", cut(zip.bytes, zip.central[1] + 7), "the file is truncated"},
      {"CutInTheData", cut(zip.bytes, zip.local[1] + 50), "the file is truncated"},
      {"CutInTheFirstHeader", cut(zip.bytes, 7), "the file is truncated"},
      {"CutAfterTheSignature", cut(zip.bytes, 4), "the file is truncated"},
      {"ByteAfterTheEnd", with_byte_after(zip.bytes), "has bytes appended"},
      {"CommentCutShort", patched<uint16_t>(zip.bytes, zip.end + 20, 5), "the file is truncated"},
      {"BeginningMissing", zip.bytes.substr(64), "not 'PK'"},
      {"EntriesOnThisDisk", patched<uint16_t>(zip.bytes, zip.end + 8, 1), "several disks"},
      {"SecondDisk", patched<uint16_t>(zip.bytes, zip.end + 4, 1), "several disks"},
      {"DirectoryOnSecondDisk", patched<uint16_t>(zip.bytes, zip.end + 6, 1), "several disks"},
      {"CountTooSmall", patched<uint32_t>(zip.bytes, zip.end + 8, 0x0001'0001),
       "bytes after its 1 entries"},
      {"CountTooLarge", patched<uint32_t>(one_more.bytes, one_more.end + 8, 0x0002'0002),
       "claims 2 entries"},
      {"CountHuge", patched<uint32_t>(zip.bytes, zip.end + 8, 0xffff'ffff), "claims 65535 entries"},
      {"DirectorySizeTooSmall", patched<uint32_t>(zip.bytes, zip.end + 12, 61), "claims 2 entries"},
      {"DirectorySizePastTheEnd", patched<uint32_t>(zip.bytes, zip.end + 12, 0xfffffff0),
       "its zip directory would take bytes"},
      {"DirectoryOffsetPastTheEnd", patched<uint32_t>(zip.bytes, zip.end + 16, 0xfffffff0),
       "its zip directory would take bytes 4294967280+"},
      {"DirectoryOffsetWrong", patched<uint32_t>(zip.bytes, zip.end + 16, 0),
       "zip directory is damaged at byte 0"},
  };
}

std::vector<BadFile> damaged_zip64() {
  const Zip zip = write_zip(kRecords, {.zip64 = true});
  const size_t extra = zip.central[1] + 46 + kRecords[1].name.size();
  return {
      {"LocatorPointsNowhere", patched<uint64_t>(zip.bytes, zip.locator + 8, 1), "zip64 locator"},
      {"LocatorPastTheEnd", patched(zip.bytes, zip.locator + 8, UINT64_MAX - 10), "zip64 locator"},
      {"LocatorOfSeveralDisks", patched<uint32_t>(zip.bytes, zip.locator + 16, 2), "several disks"},
      {"LocatorOfSecondDisk", patched<uint32_t>(zip.bytes, zip.locator + 4, 1), "several disks"},
      {"LocatorMissing", patched(zip.bytes, zip.locator, 'x'), "would take bytes 4294967295+"},
      {"End64Signature", patched(zip.bytes, zip.end64, 'x'), "no zip64 end record"},
      {"Count64Huge", patched(zip.bytes, zip.end64 + 32, UINT64_MAX),
       "entries: the file is damaged"},
      {"DirectorySize64Negative", patched(zip.bytes, zip.end64 + 40, int64_t{-1}),
       "would take bytes"},
      {"DirectoryOffset64Negative", patched(zip.bytes, zip.end64 + 48, int64_t{-64}),
       "would take bytes"},
      {"EndsDisagree",
       patched<uint16_t>(patched<uint16_t>(zip.bytes, zip.end + 8, 7), zip.end + 10, 7),
       "disagree about the number of entries: 7 and 2"},
      {"EndsDisagreeOnOffset", patched<uint32_t>(zip.bytes, zip.end + 16, 5),
       "disagree about the directory's position"},
      {"Size64Negative",
       patched(patched(zip.bytes, extra + 4, int64_t{-1}), extra + 12, int64_t{-1}),
       "would take bytes"},
      {"Offset64Wraps", patched(zip.bytes, extra + 20, UINT64_MAX - 29), "would take bytes"},
      {"Extra64Missing", patched<uint16_t>(zip.bytes, extra, 0x7777),
       "would take bytes 4294967295+"},
      {"Extra64TooShort", patched<uint16_t>(zip.bytes, extra + 2, 20), "a zip64 value would take"},
      {"Extra64TooLong", patched<uint16_t>(zip.bytes, extra + 2, 25), "an extra field"},
  };
}

std::vector<BadFile> misleading() {
  // The second entry's header lies inside the first entry's data.
  const std::string inner = write_zip({{"b", "hidden"}}, {.alignment = 1}).bytes;
  Zip nested = write_zip({{"a", inner}, {"b", "shown"}}, {.alignment = 1});
  nested.bytes = patched<uint32_t>(nested.bytes, nested.central[1] + 42, 31);
  nested.bytes = patched<uint32_t>(nested.bytes, nested.central[1] + 20, 6);
  nested.bytes = patched<uint32_t>(nested.bytes, nested.central[1] + 24, 6);
  return {
      {"DuplicateNames", write_zip({{"m/a", "1"}, {"m/a", "2"}}).bytes, "two entries named 'm/a'"},
      {"OverlappingEntries", nested.bytes, "'a' and 'b' overlap"},
      {"NameThatDrivesATerminal", write_zip({{"m/\x1b[2J\n", "1"}, {"m/\x1b[2J\n", "2"}}).bytes,
       "'m/\\x1b[2J\\x0a'"},
      {"LongName", write_zip({{std::string(5000, 'n'), "1"}, {std::string(5000, 'n'), "2"}}).bytes,
       "two entries named '" + std::string(100, 'n') + "...'"},
  };
}

class BadZip : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadZip, IsRefusedInOneLineThatNamesTheFile) { testing::expect_refused(GetParam()); }

std::string name_of(const ::testing::TestParamInfo<BadFile>& row) { return row.param.name; }

INSTANTIATE_TEST_SUITE_P(Headers, BadZip, ::testing::ValuesIn(damaged_headers()), name_of);
INSTANTIATE_TEST_SUITE_P(Ends, BadZip, ::testing::ValuesIn(damaged_ends()), name_of);
INSTANTIATE_TEST_SUITE_P(Zip64, BadZip, ::testing::ValuesIn(damaged_zip64()), name_of);
INSTANTIATE_TEST_SUITE_P(Misleading, BadZip, ::testing::ValuesIn(misleading()), name_of);

}  // namespace
}  // namespace gemma
