#include <cstdint>
#include <filesystem>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/testing.h"

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/checkpoint/gguf_blocks.h>
#include <gemma/checkpoint/gguf_writer.h>

namespace gemma {
namespace {

namespace fs = std::filesystem;
using testing::contains;
using testing::message_of;
using testing::random_tensor;
using testing::tensors_equal;

GgufTensor announced(const std::string& name, const at::Tensor& tensor) {
  return {.name = name, .sizes = tensor.sizes().vec(), .dtype = tensor.scalar_type()};
}

class GgufWriterTest : public ::testing::Test {
 protected:
  // What writing one tensor says, after which nothing may be left.
  std::string refusal(const GgufTensor& announcement,
                      const std::string& name,
                      const at::Tensor& tensor) const {
    auto message = message_of<std::invalid_argument>([&] {
      GgufWriter writer(path_, {}, {announcement});
      writer.add(name, tensor);
      writer.finish();
    });
    EXPECT_TRUE(fs::is_empty(folder_.path()));
    EXPECT_TRUE(message.starts_with(path_.string() + ": ")) << message;
    return message;
  }

  const testing::TemporaryDirectory folder_;
  const fs::path path_ = folder_.path() / "model.gguf";
};

TEST_F(GgufWriterTest, WritesWhatCheckpointReads) {
  const std::vector<at::Tensor> tensors = {
      random_tensor({3, 5}, /*seed=*/1), random_tensor({7}, /*seed=*/2).to(at::kHalf),
      random_tensor({2, 3, 5}, /*seed=*/3).to(at::kBFloat16), at::empty({0, 4}),
      random_tensor({5, 3}, /*seed=*/4).t()};
  std::vector<GgufTensor> announcements;
  for (size_t i = 0; i < tensors.size(); ++i) {
    announcements.push_back(announced(std::to_string(i), tensors[i]));
  }
  GgufWriter writer(path_, {}, announcements);
  for (size_t i = 0; i < tensors.size(); ++i) writer.add(std::to_string(i), tensors[i]);
  writer.finish();
  EXPECT_EQ(writer.size(), fs::file_size(path_));
  const auto checkpoint = Checkpoint::open(path_);
  ASSERT_EQ(checkpoint.entries().size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_TRUE(tensors_equal(checkpoint.tensor(std::to_string(i)), tensors[i])) << i;
  }
  EXPECT_TRUE(tensors_equal(checkpoint.rows("0", 1, 2), tensors[0].narrow(0, 1, 2)));
  EXPECT_THROW(checkpoint.rows("0", 2, 2), std::out_of_range);
}

TEST_F(GgufWriterTest, WritesEveryTypeOfValue) {
  GgufWriter writer(path_,
                    {{"u", uint32_t{7}},
                     {"f", 0.5F},
                     {"b", true},
                     {"s", std::string("text")},
                     {"bs", std::vector<bool>{true, false, true}},
                     {"is", std::vector<int32_t>{-1, 2}},
                     {"fs", std::vector<float>{0.25F}},
                     {"ss", std::vector<std::string>{"", "two"}}},
                    {});
  writer.finish();
  const auto checkpoint = Checkpoint::open(path_);
  const auto& metadata = *checkpoint.metadata();
  EXPECT_EQ(metadata.require<int64_t>("u"), 7);
  EXPECT_EQ(metadata.require<double>("f"), 0.5);
  EXPECT_TRUE(metadata.require<bool>("b"));
  EXPECT_EQ(metadata.require<std::string>("s"), "text");
  EXPECT_EQ(metadata.require<std::vector<bool>>("bs"), (std::vector<bool>{true, false, true}));
  EXPECT_EQ(metadata.require<std::vector<int64_t>>("is"), (std::vector<int64_t>{-1, 2}));
  EXPECT_EQ(metadata.require<std::vector<double>>("fs"), (std::vector<double>{0.25}));
  EXPECT_EQ(metadata.require<std::vector<std::string>>("ss"),
            (std::vector<std::string>{"", "two"}));
}

TEST_F(GgufWriterTest, WritesBlocksThatAreReadInFullAndByRows) {
  const auto values = random_tensor({6, 64}, /*seed=*/1);
  auto announcement = announced("w", values);
  announcement.encoding = Encoding::kQ8_0;
  GgufWriter writer(path_, {}, {announcement});
  writer.add("w", values);
  writer.finish();
  std::vector<std::byte> blocks(12 * 34);
  quantize_q8_0({values.const_data_ptr<float>(), 6 * 64}, blocks);
  auto want = at::empty({6, 64});
  dequantize(Encoding::kQ8_0, blocks, {want.mutable_data_ptr<float>(), 6 * 64});
  const auto checkpoint = Checkpoint::open(path_);
  EXPECT_EQ(checkpoint.find("w")->encoding, Encoding::kQ8_0);
  EXPECT_TRUE(tensors_equal(checkpoint.tensor("w"), want));
  EXPECT_TRUE(tensors_equal(checkpoint.rows("w", 4, 2), want.narrow(0, 4, 2)));
  EXPECT_TRUE(tensors_equal(checkpoint.rows("w", 6, 0), want.narrow(0, 6, 0)));
  EXPECT_THROW(checkpoint.rows("w", -1, 2), std::out_of_range);
  EXPECT_NEAR((want - values).abs().max().item<float>(), 0, 0.02);
}

TEST_F(GgufWriterTest, RefusesWhatWasNotAnnounced) {
  const auto w = at::ones({2, 3});
  EXPECT_TRUE(contains(refusal(announced("w", w), "v", w), "'w', float32 [2, 3], was announced"));
  EXPECT_TRUE(contains(refusal(announced("w", w), "w", w.t()), "tensor 'w' is float32 [3, 2]"));
  EXPECT_TRUE(contains(refusal(announced("w", w), "w", w.to(at::kHalf)), "is float16"));
}

TEST_F(GgufWriterTest, RefusesWhatGgufCannotHold) {
  const auto w = at::ones({2, 3});
  const auto says = [&](const GgufTensor& tensor, const char* what) {
    EXPECT_TRUE(contains(refusal(tensor, tensor.name, w), what));
  };
  says({.name = "w", .sizes = {2, 3}, .dtype = at::kLong}, "is int64 [2, 3], which is not written");
  says({.name = "w", .sizes = {2, 3}, .dtype = at::kFloat, .encoding = Encoding::kQ8_0},
       "in blocks");
  says({.name = "w", .sizes = {2, 32}, .dtype = at::kFloat, .encoding = Encoding::kQ4K},
       "in blocks");
  says({.name = "w", .sizes = {1, 1, 1, 2, 3}, .dtype = at::kFloat}, "[1, 1, 1, 2, 3]");
  says({.name = std::string(64, 'w'), .sizes = {2, 3}, .dtype = at::kFloat}, "not 1 to 63 bytes");
  says({.name = "\xff", .sizes = {2, 3}, .dtype = at::kFloat}, "tensor '\\xff'");
}

TEST_F(GgufWriterTest, RefusesNamesThatAreGivenTwice) {
  EXPECT_TRUE(contains(message_of<std::invalid_argument>(
                           [&] { GgufWriter(path_, {{"k", true}, {"k", false}}, {}); }),
                       "key 'k' is given twice"));
  const auto tensor = announced("w", at::ones({2}));
  EXPECT_TRUE(
      contains(message_of<std::invalid_argument>([&] { GgufWriter(path_, {}, {tensor, tensor}); }),
               "tensor 'w' is given twice"));
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

TEST_F(GgufWriterTest, RefusesNumbersThatBlocksCannotHold) {
  auto values = at::ones({1, 32});
  values[0][3] = std::numeric_limits<float>::quiet_NaN();
  auto announcement = announced("w", values);
  announcement.encoding = Encoding::kQ8_0;
  EXPECT_TRUE(contains(refusal(announcement, "w", values), "tensor 'w': Q8_0: a number is NaN"));
}

TEST_F(GgufWriterTest, LeavesNothingUnlessFinished) {
  const auto tensor = announced("w", at::ones({2}));
  {
    const GgufWriter writer(path_, {}, {tensor});
  }
  EXPECT_TRUE(fs::is_empty(folder_.path()));
  EXPECT_THROW(GgufWriter(path_, {}, {tensor}).finish(), std::logic_error);
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

}  // namespace
}  // namespace gemma
