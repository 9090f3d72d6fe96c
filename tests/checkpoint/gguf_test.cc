#include <cstdint>
#include <functional>
#include <limits>
#include <ostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/testing.h"

#include <gemma/checkpoint/gguf.h>

namespace gemma {
namespace {

using testing::BadFile;
using testing::contains;
using testing::message_of;
using testing::raw;

constexpr auto kPath = "folder/model.gguf";
constexpr uint32_t kFloat32 = 0;
constexpr uint32_t kHalf = 1;
constexpr uint32_t kQ8_0 = 8;

std::string text(std::string_view value) {
  return raw(uint64_t{value.size()}) + std::string(value);
}

// A key with a value: its type and its bytes.
struct Key {
  std::string key;
  GgufType type;
  std::string bytes;
};

template <typename T>
Key scalar(const std::string& key, GgufType type, T value) {
  return {key, type, raw(value)};
}

Key string_key(const std::string& key, std::string_view value) {
  return {key, GgufType::kString, text(value)};
}

std::string array(GgufType element, uint64_t count, const std::string& items) {
  return raw(static_cast<uint32_t>(element)) + raw(count) + items;
}

struct Tensor {
  std::string name = "w";
  std::vector<uint64_t> sizes = {3};  // As in the file: innermost first.
  uint32_t type = kFloat32;
  uint64_t offset = 0;
};

struct File {
  uint32_t version = 3;
  std::vector<Key> keys = {};
  std::vector<Tensor> tensors = {{}};
  size_t alignment = 32;
  std::string data = std::string(12, 'x');
  // Counts that lie; none says how many there are.
  std::optional<uint64_t> tensor_count = {}, key_count = {};
};

std::string bytes_of(const File& file) {
  std::string bytes = "GGUF" + raw(file.version);
  bytes += raw(file.tensor_count.value_or(file.tensors.size()));
  bytes += raw(file.key_count.value_or(file.keys.size()));
  for (const auto& [key, type, value] : file.keys) {
    bytes += text(key) + raw(static_cast<uint32_t>(type)) + value;
  }
  for (const auto& [name, sizes, type, offset] : file.tensors) {
    bytes += text(name) + raw(static_cast<uint32_t>(sizes.size()));
    for (const uint64_t size : sizes) bytes += raw(size);
    bytes += raw(type) + raw(offset);
  }
  bytes.resize((bytes.size() + file.alignment - 1) / file.alignment * file.alignment);
  return bytes + file.data;
}

// Of its own size, so that a sanitizer sees one byte too many.
GgufFile read(const std::vector<char>& bytes) {
  return read_gguf(std::as_bytes(std::span(bytes)), kPath);
}

std::vector<char> vector_of(const File& file) {
  const auto bytes = bytes_of(file);
  return {bytes.begin(), bytes.end()};
}

TEST(Gguf, ListsTensorsWithTheOutermostSizeFirst) {
  const auto bytes = vector_of(
      {.tensors = {{"a", {4, 2}, kFloat32, 0}, {"b", {64, 3}, kQ8_0, 32}, {"c", {}, kHalf, 256}},
       .data = std::string(258, 'x')});
  const auto file = read(bytes);
  ASSERT_EQ(file.tensors.size(), 3U);
  const auto& [a, b, c] = std::tie(file.tensors[0], file.tensors[1], file.tensors[2]);
  const auto data = bytes.size() - 258;
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.dtype, c10::ScalarType::Float);
  EXPECT_EQ(a.sizes, (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(a.strides, (std::vector<int64_t>{4, 1}));
  EXPECT_EQ(a.encoding, Encoding::kPlain);
  EXPECT_EQ(a.offset, data);
  EXPECT_EQ(a.nbytes, 32U);
  EXPECT_EQ(b.sizes, (std::vector<int64_t>{3, 64}));
  EXPECT_EQ(b.dtype, c10::ScalarType::Float);
  EXPECT_EQ(b.encoding, Encoding::kQ8_0);
  EXPECT_EQ(b.offset, data + 32);
  EXPECT_EQ(b.nbytes, 6U * 34U);
  EXPECT_EQ(c.dtype, c10::ScalarType::Half);
  EXPECT_TRUE(c.sizes.empty());
  EXPECT_EQ(c.nbytes, 2U);
}

TEST(Gguf, ReadsVersion2AndFilesWithoutTensors) {
  EXPECT_EQ(read(vector_of({.version = 2})).tensors.size(), 1U);
  EXPECT_TRUE(read(vector_of({.tensors = {}, .data = ""})).tensors.empty());
  // A vocabulary ends where its keys do.
  auto bytes =
      bytes_of({.keys = {string_key("a", "b")}, .tensors = {}, .alignment = 1, .data = ""});
  EXPECT_TRUE(read({bytes.begin(), bytes.end()}).metadata.contains("a"));
}

TEST(Gguf, AlignsDataAsTheFileSays) {
  const auto bytes = vector_of(
      {.keys = {scalar("general.alignment", GgufType::kUint32, uint32_t{256})}, .alignment = 256});
  EXPECT_EQ(read(bytes).tensors[0].offset, 256U);
}

TEST(Gguf, AllowsTensorsWithoutElements) {
  const auto bytes = vector_of({.tensors = {{"w", {0, 5}, kFloat32, 0}}, .data = ""});
  const auto file = read(bytes);
  EXPECT_EQ(file.tensors[0].nbytes, 0U);
  EXPECT_EQ(file.tensors[0].sizes, (std::vector<int64_t>{5, 0}));
}

TEST(GgufMetadata, ReadsEveryTypeOfValue) {
  const auto bytes = vector_of({
      .keys = {scalar("u8", GgufType::kUint8, uint8_t{200}),
               scalar("i8", GgufType::kInt8, int8_t{-3}),
               scalar("u16", GgufType::kUint16, uint16_t{60000}),
               scalar("i16", GgufType::kInt16, int16_t{-300}),
               scalar("u32", GgufType::kUint32, uint32_t{4'000'000'000}),
               scalar("i32", GgufType::kInt32, int32_t{-5}),
               scalar("u64", GgufType::kUint64, uint64_t{1} << 62),
               scalar("i64", GgufType::kInt64, int64_t{-7}),
               scalar("f32", GgufType::kFloat32, 0.5F),
               scalar("f64", GgufType::kFloat64, 0.1),
               scalar("yes", GgufType::kBool, uint8_t{1}),
               string_key("text", std::string("a\0b", 3)),
               {"numbers", GgufType::kArray,
                array(GgufType::kInt16, 2, raw(int16_t{-1}) + raw(int16_t{9}))},
               {"texts", GgufType::kArray, array(GgufType::kString, 2, text("") + text("two"))},
               {"flags", GgufType::kArray, array(GgufType::kBool, 2, {'\1', '\0'})},
               {"none", GgufType::kArray, array(GgufType::kFloat32, 0, "")},
               {"nested", GgufType::kArray,
                array(GgufType::kArray, 2,
                      array(GgufType::kUint8, 1, "a") + array(GgufType::kString, 1, text("b")))}},
  });
  const auto file = read(bytes);
  const auto& metadata = file.metadata;
  EXPECT_EQ(metadata.values().size(), 17U);
  EXPECT_EQ(metadata.get<int64_t>("u8"), 200);
  EXPECT_EQ(metadata.get<int64_t>("i8"), -3);
  EXPECT_EQ(metadata.get<int64_t>("u16"), 60000);
  EXPECT_EQ(metadata.get<int64_t>("i16"), -300);
  EXPECT_EQ(metadata.get<int64_t>("u32"), 4'000'000'000);
  EXPECT_EQ(metadata.get<int64_t>("i32"), -5);
  EXPECT_EQ(metadata.get<int64_t>("u64"), int64_t{1} << 62);
  EXPECT_EQ(metadata.get<int64_t>("i64"), -7);
  EXPECT_EQ(metadata.get<double>("f32"), 0.5);
  EXPECT_EQ(metadata.get<double>("f64"), 0.1);
  EXPECT_EQ(metadata.get<double>("i8"), -3.0);
  EXPECT_EQ(metadata.get<bool>("yes"), true);
  EXPECT_EQ(metadata.get<std::string>("text"), std::string("a\0b", 3));
  EXPECT_EQ(metadata.require<std::vector<int64_t>>("numbers"), (std::vector<int64_t>{-1, 9}));
  EXPECT_EQ(metadata.require<std::vector<std::string>>("texts"),
            (std::vector<std::string>{"", "two"}));
  EXPECT_EQ(metadata.require<std::vector<bool>>("flags"), (std::vector<bool>{true, false}));
  EXPECT_TRUE(metadata.require<std::vector<double>>("none").empty());
  EXPECT_EQ(metadata.values().at("nested").count, 2U);
  EXPECT_EQ(metadata.get<int64_t>("absent"), std::nullopt);
}

TEST(GgufMetadata, RefusesValuesOfAnotherTypeNamingTheKey) {
  const auto bytes =
      vector_of({.keys = {string_key("text", "a"),
                          scalar("big", GgufType::kUint64, uint64_t{1} << 63),
                          scalar("flag", GgufType::kBool, uint8_t{2}),
                          {"nested", GgufType::kArray,
                           array(GgufType::kArray, 1, array(GgufType::kUint8, 0, ""))}}});
  const auto file = read(bytes);
  const auto& metadata = file.metadata;
  const auto expect = [](const std::string& message, std::string_view want) {
    EXPECT_TRUE(message.starts_with("folder/model.gguf: ")) << message;
    EXPECT_TRUE(contains(message, std::string(want)));
  };
  using Error = std::runtime_error;
  expect(message_of<Error>([&] { metadata.get<int64_t>("text"); }),
         "key 'text' is string, not an integer");
  expect(message_of<Error>([&] { metadata.get<std::string>("big"); }),
         "key 'big' is uint64, not a string");
  expect(message_of<Error>([&] { metadata.get<int64_t>("big"); }), "beyond 2^63 - 1");
  expect(message_of<Error>([&] { metadata.get<bool>("flag"); }), "not 0 or 1");
  expect(message_of<Error>([&] { metadata.get<std::vector<int64_t>>("big"); }), "not an array");
  expect(message_of<Error>([&] { metadata.get<std::vector<int64_t>>("nested"); }),
         "is an array of array");
  expect(message_of<Error>([&] { metadata.require<bool>("absent"); }), "has no key 'absent'");
}

class BadGguf : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadGguf, IsRefusedNamingTheFile) {
  const auto& bytes = GetParam().bytes;
  const std::vector<char> exact(bytes.begin(), bytes.end());
  const auto message = message_of<std::runtime_error>([&] { read(exact); });
  testing::expect_message(message, kPath, GetParam().expected);
}

constexpr auto kMax = std::numeric_limits<uint64_t>::max();

std::string nested_arrays(int depth) {
  std::string bytes = array(GgufType::kUint8, 0, "");
  for (int i = 1; i < depth; ++i) bytes = array(GgufType::kArray, 1, bytes);
  return bytes;
}

File with_key(Key key) { return {.keys = {std::move(key)}}; }
File with_tensor(Tensor tensor) { return {.tensors = {std::move(tensor)}}; }

std::string cut(const File& file, size_t size) { return bytes_of(file).substr(0, size); }

// A file whose bytes end in the middle of its only key, which `bytes` begins.
std::string ending_in_key(const std::string& bytes) {
  return "GGUF" + raw(uint32_t{3}) + raw(uint64_t{0}) + raw(uint64_t{1}) + bytes;
}

std::vector<BadFile> bad_files() {
  return {
      {"Magic", "GGUX" + std::string(60, '\0'), "begins with 'GGUX'"},
      {"MagicAlone", "GGUF", "version would take bytes 4+4 of 4"},
      {"NoCounts", cut({}, 12), "number of tensors would take bytes"},
      {"Version1", bytes_of({.version = 1}), "version 1 of GGUF, and only 2 and 3"},
      {"Version4", bytes_of({.version = 4}), "version 4 of GGUF"},
      {"Version0", bytes_of({.version = 0}), "version 0 of GGUF"},
      {"BigEndian", bytes_of({.version = 0x03000000}), "big-endian"},
      {"TensorBomb", bytes_of({.tensor_count = kMax}), "it has 18446744073709551615 tensors"},
      {"MoreTensorsThanThere", bytes_of({.tensor_count = 1000}), "would take bytes"},
      {"KeyBomb", bytes_of({.key_count = kMax}), "it has 18446744073709551615 keys"},
      {"MoreKeysThanThere", bytes_of({.key_count = 1000}), "file is damaged"},
      {"KeyLength", ending_in_key(raw(kMax) + "a"), "key would take bytes 32+18446744073709551615"},
      {"KeyEmpty", bytes_of(with_key(string_key("", "a"))), "key '' is not 1 to 65535 bytes"},
      {"KeyTooLong", bytes_of(with_key(string_key(std::string(65536, 'k'), "a"))),
       "not 1 to 65535"},
      {"KeyNotUtf8", bytes_of(with_key(string_key("\xff", "a"))), "key '\\xff' is not"},
      {"KeyTwice", bytes_of({.keys = {string_key("k", "a"), string_key("k", "b")}}),
       "key 'k' twice"},
      {"ValueType", bytes_of(with_key({"k", static_cast<GgufType>(13), ""})), "a value of type 13"},
      {"ValueMissing", ending_in_key(text("k") + raw(uint32_t{4}) + "ab"),
       "key 'k' would take bytes"},
      {"StringLength", ending_in_key(text("k") + raw(uint32_t{8}) + raw(kMax)),
       "key 'k' would take bytes"},
      {"ArrayBomb", bytes_of(with_key({"k", GgufType::kArray, array(GgufType::kUint64, kMax, "")})),
       "an array of 18446744073709551615 elements"},
      {"ArrayTooLong",
       bytes_of(with_key({"k", GgufType::kArray, array(GgufType::kUint8, 1 << 20, "")})),
       "key 'k' would take bytes"},
      {"ArrayOfStringsBomb",
       bytes_of(with_key({"k", GgufType::kArray, array(GgufType::kString, kMax, "")})),
       "key 'k' would take bytes"},
      {"ArrayElementType",
       bytes_of(with_key({"k", GgufType::kArray, array(static_cast<GgufType>(99), 1, "")})),
       "a value of type 99"},
      {"ArraysTooDeep", bytes_of(with_key({"k", GgufType::kArray, nested_arrays(1000)})),
       "arrays 5 deep"},
      {"ArrayOfArraysBomb",
       bytes_of(with_key({"k", GgufType::kArray, array(GgufType::kArray, kMax, nested_arrays(1))})),
       "key 'k' would take bytes"},
      {"Alignment0",
       bytes_of(with_key(scalar("general.alignment", GgufType::kUint32, uint32_t{0}))),
       "'general.alignment' is 0, not a power of two"},
      {"Alignment48",
       bytes_of(with_key(scalar("general.alignment", GgufType::kUint32, uint32_t{48}))),
       "is 48, not a power of two"},
      {"AlignmentHuge",
       bytes_of(with_key(scalar("general.alignment", GgufType::kUint64, uint64_t{1} << 62))),
       "not a power of two"},
      {"AlignmentText", bytes_of(with_key(string_key("general.alignment", "32"))),
       "is string, not an integer"},
      {"Split", bytes_of(with_key(scalar("split.count", GgufType::kUint16, uint16_t{3}))),
       "is one of 3 parts of a model: join them with `llama-gguf-split --merge FIRST OUT`, where "
       "FIRST ends in -00001-of-00003.gguf"},
      {"Adapter", bytes_of(with_key(string_key("general.type", "adapter"))),
       "is an adapter (LoRA), not a model: merge it"},
      {"ImportanceMatrix", bytes_of(with_key(string_key("general.type", "imatrix"))),
       "is an importance matrix (imatrix)"},
      {"PicturePart", bytes_of(with_key(string_key("general.type", "mmproj"))),
       "is the picture part (mmproj)"},
      {"PicturePartOfOldFiles", bytes_of(with_key(string_key("general.architecture", "clip"))),
       "is the picture part (mmproj)"},
      {"TensorNameEmpty", bytes_of(with_tensor({.name = ""})), "tensor '' is not 1 to"},
      {"TensorNameNotUtf8", bytes_of(with_tensor({.name = "a\xc3"})), "tensor 'a\\xc3' is not"},
      {"TensorTwice", bytes_of({.tensors = {{}, {}}}), "a tensor 'w' twice"},
      {"Dimensions", bytes_of(with_tensor({.sizes = {1, 1, 1, 1, 1}})), "has 5 dimensions"},
      {"SizeNegative", bytes_of(with_tensor({.sizes = {kMax}})), "more than 2^48 elements"},
      {"SizeProduct", bytes_of(with_tensor({.sizes = {1 << 30, 1 << 30, 16}})), "more than 2^48"},
      {"SizeProductWithZero", bytes_of(with_tensor({.sizes = {1 << 30, 0, 1 << 30}})),
       "more than 2^48"},
      {"TensorType", bytes_of(with_tensor({.type = 10})), "is of type Q2_K, which is not read"},
      {"TensorTypeIq4", bytes_of(with_tensor({.type = 23})),
       "is of type IQ4_XS, which is not read: take the model's file in F32,"},
      {"TensorTypeUnknown", bytes_of(with_tensor({.type = 999})), "of ggml's type 999"},
      {"TensorTypeRemoved", bytes_of(with_tensor({.type = 4})), "of ggml's type 4"},
      {"HalfABlock", bytes_of(with_tensor({.sizes = {48, 2}, .type = kQ8_0})),
       "rows of 48 elements, but Q8_0 has 32"},
      {"BlockOfNothing", bytes_of(with_tensor({.sizes = {}, .type = kQ8_0})), "rows of 1 elements"},
      {"OffsetUnaligned", bytes_of(with_tensor({.offset = 4})), "is at 4, not at a multiple of 32"},
      {"OffsetHuge", bytes_of(with_tensor({.offset = kMax - 31})),
       "would take bytes 18446744073709551584+12"},
      {"CutOff", cut({}, bytes_of({}).size() - 1), "the file is cut off"},
      {"CutOffBeforeData", cut({}, bytes_of({}).size() - 13), "the file is cut off"},
  };
}

INSTANTIATE_TEST_SUITE_P(Gguf, BadGguf, ::testing::ValuesIn(bad_files()), [](const auto& file) {
  return file.param.name;
});

// Whatever byte is changed or missing, the reader answers or throws what it says.
TEST(Gguf, SurvivesEveryCutAndEveryFlippedByte) {
  const auto bytes = bytes_of(
      {.keys = {scalar("general.alignment", GgufType::kUint32, uint32_t{64}),
                string_key("t", "x"),
                {"a", GgufType::kArray, array(GgufType::kString, 2, text("p") + text("q"))}},
       .tensors = {{"w", {2, 2}, kFloat32, 0}, {"q", {32}, kQ8_0, 64}},
       .alignment = 64,
       .data = std::string(98, 'x')});
  const auto attempt = [](const std::vector<char>& damaged) {
    try {
      for (const auto& entry : read(damaged).tensors) {
        ASSERT_LE(entry.offset + entry.nbytes, damaged.size());
      }
    } catch (const std::runtime_error& error) {
      testing::expect_message(error.what(), kPath, "");
    }
  };
  for (size_t size = 0; size < bytes.size(); ++size)
    attempt({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)});
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const char value : {'\0', '\1', '\x7f', '\xff'}) {
      std::vector<char> damaged(bytes.begin(), bytes.end());
      damaged[i] = value;
      attempt(damaged);
    }
  }
}

}  // namespace
}  // namespace gemma
