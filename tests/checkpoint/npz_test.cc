#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/testing.h"

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/checkpoint/npz.h>

namespace gemma {
namespace {

using c10::ScalarType;
using testing::BadFile;
using testing::expect_message;
using testing::floats;
using testing::message_of;
using testing::raw;
using testing::write_zip;
using testing::ZipRecord;
using Sizes = std::vector<int64_t>;

// What numpy.save writes: the header is padded, so that data begins at a multiple of 64.
std::string npy(std::string header, std::string_view data, uint8_t version = 1) {
  const size_t before = version == 1 ? 10 : 12;
  header.append(63 - (before + header.size()) % 64, ' ').append("\n");
  std::string file = "\x93NUMPY" + std::string{static_cast<char>(version), '\0'};
  file += version == 1 ? raw(static_cast<uint16_t>(header.size()))
                       : raw(static_cast<uint32_t>(header.size()));
  return file.append(header).append(data);
}

std::string header_of(std::string_view descr, std::string_view shape, bool is_fortran = false) {
  return "{'descr': '" + std::string(descr) +
         "', 'fortran_order': " + (is_fortran ? "True" : "False") +
         ", 'shape': " + std::string(shape) + ", }";
}

std::string npz(const std::vector<ZipRecord>& arrays) {
  return write_zip(arrays, {.alignment = 1, .sizes_follow = false}).bytes;
}

std::vector<TensorEntry> read(const std::string& file) {
  return read_npz(testing::as_bytes(file), "model.npz");
}

TEST(Npz, ReadsArraysAndWhereTheirBytesAre) {
  const std::string file = npz({{"a/w.npy", npy(header_of("<f4", "(2, 3)"), std::string(24, 'x'))},
                                {"b.npy", npy(header_of("|V2", "(1,)"), "xy", 2)},
                                {"c.npy", npy(header_of("<i8", "()"), std::string(8, 'z'), 3)},
                                {"d.npy", npy(header_of("|u1", "(4, 0)"), "")}});
  ASSERT_TRUE(is_npz(testing::as_bytes(file)));
  const auto entries = read(file);
  ASSERT_EQ(entries.size(), 4);
  EXPECT_EQ(entries[0].name, "a/w");
  EXPECT_EQ(entries[0].dtype, ScalarType::Float);
  EXPECT_EQ(entries[0].sizes, (Sizes{2, 3}));
  EXPECT_EQ(entries[0].strides, (Sizes{3, 1}));
  EXPECT_EQ(file.substr(entries[0].offset, entries[0].nbytes), std::string(24, 'x'));
  EXPECT_EQ(entries[1].dtype, ScalarType::BFloat16);
  EXPECT_EQ(file.substr(entries[1].offset, entries[1].nbytes), "xy");
  EXPECT_EQ(entries[2].sizes, Sizes{});
  EXPECT_EQ(file.substr(entries[2].offset, entries[2].nbytes), "zzzzzzzz");
  EXPECT_EQ(entries[3].sizes, (Sizes{4, 0}));
  EXPECT_EQ(entries[3].nbytes, 0);
}

TEST(Npz, ReadsColumnsOneAfterAnother) {
  const testing::TemporaryDirectory folder;
  const auto path = folder.write(
      "w.npz", npz({{"w.npy", npy(header_of("<f4", "(2, 3)", true), floats({1, 4, 2, 5, 3, 6}))}}));
  const auto checkpoint = Checkpoint::open(path);
  const auto want = at::arange(1, 7, at::kFloat).view({2, 3});
  EXPECT_TRUE(at::equal(checkpoint.tensor("w"), want));
  EXPECT_TRUE(at::equal(checkpoint.rows("w", 1, 1), want.narrow(0, 1, 1)));
}

// NumPy does not align what is in an archive.
TEST(Npz, ReadsRowsAtAnyPlaceInTheFile) {
  const testing::TemporaryDirectory folder;
  for (size_t shift = 0; shift < 4; ++shift) {
    const auto path = folder.write(
        "w.npz", npz({{std::string(1 + shift, 'a') + ".npy", npy(header_of("|i1", "(1,)"), "x")},
                      {"w.npy", npy(header_of("<f4", "(3, 2)"), floats({1, 2, 3, 4, 5, 6}))}}));
    const auto checkpoint = Checkpoint::open(path);
    const auto want = at::arange(1, 7, at::kFloat).view({3, 2});
    EXPECT_TRUE(at::equal(checkpoint.tensor("w"), want));
    EXPECT_TRUE(at::equal(checkpoint.rows("w", 1, 2), want.narrow(0, 1, 2)));
    EXPECT_EQ(checkpoint.rows("w", 3, 0).numel(), 0);
  }
}

TEST(Npz, AnArrayByItselfHasTheNameOfItsFile) {
  const testing::TemporaryDirectory folder;
  const auto file = npy(header_of("<f4", "(3,)"), floats({1, 2, 3}));
  EXPECT_TRUE(is_npy(testing::as_bytes(file)));
  EXPECT_FALSE(is_npz(testing::as_bytes(file)));
  const auto checkpoint = Checkpoint::open(folder.write("a.b.npy", file));
  ASSERT_EQ(checkpoint.entries().size(), 1);
  EXPECT_TRUE(at::equal(checkpoint.tensor("a.b"), at::arange(1, 4, at::kFloat)));
  const auto cut = folder.write("cut.npy", file.substr(0, file.size() - 1));
  EXPECT_TRUE(testing::contains(
      message_of<std::runtime_error>([&] { Checkpoint::open(cut); }),
      "cut.npy: array 'cut' needs 12 bytes but holds 11: the file is damaged; download it again"));
}

TEST(Npz, IsNoOtherZip) {
  EXPECT_FALSE(is_npz(testing::as_bytes(testing::small_torch_file())));
  EXPECT_FALSE(is_npz(testing::as_bytes("PK")));
  EXPECT_FALSE(is_npz(testing::as_bytes("")));
}

class BadNpz : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadNpz, IsRefused) {
  const auto message = message_of<std::runtime_error>([&] { read(GetParam().bytes); });
  expect_message(message, "model.npz: ", GetParam().expected);
}

std::string with(const std::string& array) { return npz({{"w.npy", array}}); }
std::string with_header(const std::string& header) { return with(npy(header, "xxxx")); }

std::vector<BadFile> bad_files() {
  const auto other_header = "a header that numpy.savez does not write";
  return {
      {"Magic", with("no array"), "does not begin as a file of numpy.save"},
      {"Version", with(npy(header_of("<f4", "(1,)"), "xxxx", 9)), "version 9 of the format"},
      {"HeaderPastTheEnd", with(std::string("\x93NUMPY\1\0\xff\xff", 10)), "would take bytes"},
      {"NoVersion", with("\x93NUMPY"), "would take bytes"},
      {"NoDict", with_header("[]"), other_header},
      {"NoShape", with_header("{'descr': '<f4', 'fortran_order': False}"), other_header},
      {"NoOrder", with_header("{'descr': '<f4', 'shape': (1,)}"), other_header},
      {"NoDescr", with_header("{'fortran_order': False, 'shape': (1,)}"), other_header},
      {"TwoShapes", with_header("{'shape': (1,), 'shape': (1,)}"), other_header},
      {"OtherKey", with_header("{'code': 'x'}"), other_header},
      {"Program", with_header("{'descr': __import__('os').system('true')}"), other_header},
      {"Behind", with_header(header_of("<f4", "(1,)") + "x"), other_header},
      {"NegativeSize", with_header(header_of("<f4", "(-1,)")), other_header},
      {"HugeSize", with_header(header_of("<f4", "(99999999999999999999,)")), other_header},
      {"HugeProduct", with_header(header_of("<f4", "(16777216, 16777216, 2)")), other_header},
      {"HugeProductWithZero", with_header(header_of("<f4", "(281474976710656, 2, 0)")),
       other_header},
      {"NineDimensions", with_header(header_of("<f4", "(1, 1, 1, 1, 1, 1, 1, 1, 1)")),
       other_header},
      {"OpenShape", with_header("{'shape': (1, "), other_header},
      {"OpenString", with_header("{'descr"), other_header},
      {"TooLong", with(npy(header_of("<f4", "(1,)"), "xxxxx")), "needs 4 bytes but holds 5"},
      {"TooShort", with(npy(header_of("<f4", "(2,)"), "xxxx")), "needs 8 bytes but holds 4"},
      {"BigEndian", with_header(header_of(">f4", "(1,)")), "is of dtype '>f4'"},
      {"Text", with_header(header_of("<U1", "(1,)")), "is of dtype '<U1'"},
      {"Objects", with_header(header_of("|O", "(1,)")), "pickled Python objects"},
      {"Fields", with_header("{'descr': [('a', '<f4')], 'shape': (1,)}"), "several fields"},
      {"NoArray", npz({{"w.npy", npy(header_of("<f4", "(1,)"), "xxxx")}, {"note.txt", "x"}}),
       "its entry 'note.txt' is no array of NumPy"},
  };
}

INSTANTIATE_TEST_SUITE_P(Npz, BadNpz, ::testing::ValuesIn(bad_files()), [](const auto& file) {
  return file.param.name;
});

}  // namespace
}  // namespace gemma
