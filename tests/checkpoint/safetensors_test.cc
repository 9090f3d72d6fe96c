#include <cstdint>
#include <exception>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/testing.h"

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/checkpoint/safetensors.h>
#include <gemma/checkpoint/safetensors_writer.h>

namespace gemma {
namespace {

using testing::BadFile;
using testing::contains;
using testing::message_of;
using testing::raw;
using testing::TemporaryDirectory;
using testing::tensors_equal;

std::string file_of(const std::string& header, const std::string& data = {}) {
  return raw<uint64_t>(header.size()) + header + data;
}

// {"w": {...}} over 12 bytes.
std::string file_with(const std::string& tensor) {
  return file_of("{\"w\":" + tensor + "}", std::string(12, 'x'));
}

std::string f32(const std::string& shape, const std::string& offsets) {
  return R"({"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

std::vector<TensorEntry> read(const std::string& file) {
  return read_safetensors(testing::as_bytes(file), "model.safetensors");
}

TEST(Safetensors, ReadsTensorsAndWhereTheirBytesAre) {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},)"
      R"("a":{"shape":[2],"data_offsets":[0,8],"dtype":"F32"}}   )";
  const auto entries = read(file_of(header, std::string(20, 'x')));
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].name, "b");
  EXPECT_EQ(entries[0].dtype, c10::ScalarType::BFloat16);
  EXPECT_EQ(entries[0].sizes, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(entries[0].strides, (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(entries[0].offset, 8 + header.size() + 8);
  EXPECT_EQ(entries[0].nbytes, 12U);
  EXPECT_EQ(entries[1].name, "a");
  EXPECT_EQ(entries[1].offset, 8 + header.size());
}

TEST(Safetensors, ReadsScalarsAndTensorsWithoutElements) {
  const auto entries = read(file_of(R"({"none":{"dtype":"I8","shape":[0,5],"data_offsets":[0,0]},)"
                                    R"("one":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})",
                                    "x"));
  EXPECT_EQ(entries[0].nbytes, 0U);
  EXPECT_EQ(entries[0].strides, (std::vector<int64_t>{5, 1}));
  EXPECT_TRUE(entries[1].sizes.empty());
  EXPECT_EQ(entries[1].nbytes, 1U);
}

TEST(Safetensors, AreReadThroughCheckpointThoughNotAligned) {
  const TemporaryDirectory directory;
  const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("w":{"dtype":"F32","shape":[3],"data_offsets":[1,13]}})";
  const auto path = directory.write("blob", file_of(header, "x" + testing::floats({1, 2, 3})));
  const auto checkpoint = Checkpoint::open(path);  // Known by its content.
  EXPECT_TRUE(tensors_equal(checkpoint.tensor("w"), at::tensor({1.0F, 2.0F, 3.0F})));
}

class BadSafetensors : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadSafetensors, AreRefusedInOneLineThatNamesTheFile) {
  const std::vector<char> exact(GetParam().bytes.begin(), GetParam().bytes.end());
  const auto message = message_of<std::exception>(
      [&] { read_safetensors(std::as_bytes(std::span(exact)), "model.safetensors"); });
  testing::expect_message(message, "model.safetensors: ", GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(
    Table,
    BadSafetensors,
    ::testing::Values(
        BadFile{"Empty", "", "it is empty (0 bytes): download it again"},
        BadFile{"SevenBytes", std::string(7, '\0'), "the length of its header would take bytes"},
        BadFile{"LengthOnly", raw<uint64_t>(2), "its header has 2 bytes, but the file only 8"},
        BadFile{"LengthOfNothing", raw<uint64_t>(0), "not with a brace"},
        BadFile{"HeaderCutShort", raw<uint64_t>(50) + "{\"w\"", "the download is not complete"},
        BadFile{"LengthWraps", raw(UINT64_MAX) + "{}", "more than 100000000"},
        BadFile{"LengthOverTheLimit", raw<uint64_t>(100'000'001) + "{}", "more than 100000000"},
        BadFile{"WebPage", "<!DOCTYPE html><html>", "is a web page, not the weights"},
        BadFile{"GitLfs", "version https://git-lfs.github.com/spec/v1\noid",
                "is a git-lfs pointer"},
        BadFile{"NotJson", file_of("{nonsense"), "its header is not JSON (at byte"},
        BadFile{"JsonCutShort", file_of("{\"w\":{"), "its header is not JSON"},
        BadFile{"TwoObjects", file_of("{}{}"), "its header is not JSON"},
        BadFile{"Array", file_of("[1,2]"), "its header begins with '[1,2'"},
        BadFile{"NotUtf8", file_of("{\"\xff\":1}"), "its header is not JSON"},
        BadFile{"NoTensors", file_of("{}"), "it holds no tensors"},
        BadFile{"MetadataAlone", file_of(R"({"__metadata__":{"a":"b"}})"), "it holds no tensors"},
        BadFile{"MetadataOfNumbers", file_of(R"({"__metadata__":{"a":1}})"),
                "its \"__metadata__\" holds a number"},
        BadFile{"MetadataTwice", file_of(R"({"__metadata__":{},"__metadata__":{}})"),
                "has '__metadata__' twice"},
        BadFile{"TensorIsANumber", file_with("1"), "tensor 'w' is a number, not an object"},
        BadFile{"TensorIsAnArray", file_with("[]"), "tensor 'w' is an array, not an object"},
        BadFile{"NestedObject", file_with(R"({"dtype":{"a":1}})"), "its \"dtype\" is an object"},
        BadFile{"UnknownField", file_with(R"({"stride":[1]})"), "its \"stride\" is an array"},
        BadFile{"NoDtype", file_with(R"({"shape":[3],"data_offsets":[0,12]})"),
                "tensor 'w' has no \"dtype\""},
        BadFile{"NoShape", file_with(R"({"dtype":"F32","data_offsets":[0,12]})"),
                "tensor 'w' has no \"shape\""},
        BadFile{"NoOffsets", file_with(R"({"dtype":"F32","shape":[3]})"),
                "tensor 'w' has no \"data_offsets\""},
        BadFile{"DtypeTwice", file_with(R"({"dtype":"F32","dtype":"F16"})"),
                "tensor 'w' has two \"dtype\""},
        BadFile{"ShapeTwice", file_with(R"({"shape":[3],"shape":[3]})"),
                "tensor 'w' has two \"shape\""},
        BadFile{"UnknownDtype",
                file_with(R"({"dtype":"F4","shape":[12],"data_offsets":[0,12]})"),
                "has dtype 'F4', which this does not read"},
        BadFile{"EscapesInADtype",
                file_with(R"({"dtype":"\u001b[2J\n","shape":[3],"data_offsets":[0,12]})"),
                "has dtype '\\x1b[2J\\x0a'"},
        BadFile{"NegativeSize", file_with(f32("[-3]", "[0,12]")), "holds a negative number"},
        BadFile{"FractionalSize", file_with(f32("[1.5]", "[0,12]")), "holds a fraction"},
        BadFile{"SizeOfText", file_with(f32("[\"3\"]", "[0,12]")), "holds a string"},
        BadFile{"NestedShape", file_with(f32("[[3]]", "[0,12]")), "holds an array"},
        BadFile{"NineDimensions", file_with(f32("[1,1,1,1,1,1,1,1,3]", "[0,12]")),
                "its shape has more than 8 numbers"},
        BadFile{"ProductWrapsToZero", file_with(f32("[4294967296,4294967296]", "[0,0]")),
                "more than 2^48 elements"},
        BadFile{"ProductWrapsToThree", file_with(f32("[6148914691236517205,9]", "[0,12]")),
                "more than 2^48 elements"},
        BadFile{"HugeBesideZero", file_with(f32("[0,18446744073709551615]", "[0,0]")),
                "more than 2^48 elements"},
        BadFile{"NumberOver64Bits", file_with(f32("[18446744073709551616]", "[0,12]")),
                "holds a fraction"},
        BadFile{"OneOffset", file_with(f32("[3]", "[0]")), "has 1 \"data_offsets\""},
        BadFile{"ThreeOffsets", file_with(f32("[3]", "[0,12,12]")), "has 3 \"data_offsets\""},
        BadFile{"EndBeforeBegin", file_with(f32("[3]", "[12,0]")), "is at bytes 12 to 0 of 12"},
        BadFile{"PastTheEnd", file_with(f32("[4]", "[0,16]")), "is at bytes 0 to 16 of 12"},
        BadFile{"OffsetWraps", file_with(f32("[3]", "[18446744073709551612,8]")), "is at bytes"},
        BadFile{"TooFewBytes", file_with(f32("[3]", "[0,8]")), "needs 12 bytes but has 8"},
        BadFile{"TooManyBytes", file_with(f32("[2]", "[0,12]")), "needs 8 bytes but has 12"},
        BadFile{"BytesBehind", file_with(f32("[2]", "[0,8]")), "has 12 bytes of data"},
        BadFile{"GapBefore", file_with(f32("[2]", "[4,12]")), "begins at byte 4, but"},
        BadFile{"Overlap",
                file_of("{\"a\":" + f32("[2]", "[0,8]") + ",\"b\":" + f32("[2]", "[4,12]") + "}",
                        std::string(12, 'x')),
                "tensor 'b' begins at byte 4, but those before it end at 8"},
        BadFile{"SameBytesTwice",
                file_of("{\"a\":" + f32("[3]", "[0,12]") + ",\"b\":" + f32("[3]", "[0,12]") + "}",
                        std::string(12, 'x')),
                "begins at byte 0, but those before it end at 12"},
        BadFile{"NameTwice",
                file_of("{\"a\":" + f32("[3]", "[0,12]") + ",\"a\":" + f32("[3]", "[0,12]") + "}",
                        std::string(12, 'x')),
                "its header has 'a' twice"}),
    [](const auto& row) { return row.param.name; });

TEST(BadSafetensorsOnDisk, NameTheFileAndNotAnotherFormat) {
  const TemporaryDirectory directory;
  const auto path = directory.write("model.safetensors", raw<uint64_t>(50) + "{");
  testing::expect_message(message_of<std::exception>([&] { Checkpoint::open(path); }),
                          path.string() + ": ", "the download is not complete");
}

TEST(Safetensors, AMillionLevelsCostNothing) {
  const std::string deep = "{\"w\":" + std::string(1'000'000, '[');
  EXPECT_TRUE(contains(message_of<std::exception>([&] { read(file_of(deep)); }),
                       "is an array, not an object"));
}

TEST(SafetensorsWriter, WritesWhatTheReaderReads) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "model.safetensors";
  const auto a = at::arange(6, at::kFloat).view({2, 3}).t(), b = at::ones({}, at::kBFloat16);
  SafetensorsWriter writer(path, {{"a \"ä", at::kFloat, {3, 2}}, {"b", at::kBFloat16, {}}});
  writer.add("a \"ä", a);
  writer.add("b", b);
  EXPECT_FALSE(std::filesystem::exists(path));
  writer.finish();
  const auto checkpoint = Checkpoint::open(path);
  EXPECT_TRUE(tensors_equal(checkpoint.tensor("a \"ä"), a.contiguous()));
  EXPECT_TRUE(tensors_equal(checkpoint.tensor("b"), b));
  EXPECT_EQ(checkpoint.entries()[0].offset % 64, 0U);
}

TEST(SafetensorsWriter, RefusesWhatWasNotAnnouncedAndLeavesNothing) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "model.safetensors";
  const auto one = at::ones({1});
  using Specs = std::vector<TensorSpec>;
  const auto message = [&](const Specs& specs, const at::Tensor& tensor) {
    return message_of<std::exception>([&] {
      SafetensorsWriter writer(path, specs);
      writer.add("a", tensor);
      writer.finish();
    });
  };
  const TensorSpec a{"a", at::kFloat, {1}};
  EXPECT_TRUE(contains(message({}, one), "is one more than was announced"));
  EXPECT_TRUE(contains(message({a}, at::ones({2})), "is not what was announced"));
  EXPECT_TRUE(contains(message({a}, one.to(at::kHalf)), "is not what was announced"));
  EXPECT_TRUE(contains(message({a, a}, one), "is given twice"));
  EXPECT_TRUE(contains(message({{"a\xff", at::kFloat, {1}}}, one), "a name that is not UTF-8"));
  EXPECT_TRUE(contains(message({{"a", at::kComplexDouble, {1}}}, one), "safetensors do not hold"));
  EXPECT_TRUE(contains(message({a, {"b", at::kFloat, {1}}}, one), "1 of 2 tensors were given"));
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

}  // namespace
}  // namespace gemma
