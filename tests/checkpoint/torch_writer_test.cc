#include <cstdint>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/testing.h"

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/checkpoint/torch_writer.h>

namespace gemma {
namespace {

namespace fs = std::filesystem;
using testing::contains;
using testing::message_of;
using testing::random_tensor;
using testing::tensors_equal;
using Tensors = std::vector<std::pair<std::string, at::Tensor>>;

class TorchWriterTest : public ::testing::Test {
 protected:
  void expect_round_trip(const Tensors& tensors) const {
    save_weights(path_, tensors, /*overwrite=*/true);
    const auto checkpoint = Checkpoint::open(path_);
    ASSERT_EQ(checkpoint.entries().size(), tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      const auto& [name, tensor] = tensors[i];
      EXPECT_EQ(checkpoint.entries()[i].name, name);
      EXPECT_TRUE(tensors_equal(checkpoint.tensor(name), tensor)) << name;
      EXPECT_TRUE(checkpoint.tensor(name).is_contiguous()) << name;
    }
  }

  // What `add` says to this tensor, after which nothing may be left.
  std::string refusal(const std::string& name, const at::Tensor& tensor) const {
    auto message = message_of<std::invalid_argument>([&] {
      TorchWriter writer(path_);
      writer.add("good", at::ones({2}));
      writer.add(name, tensor);
    });
    EXPECT_TRUE(fs::is_empty(folder_.path()));
    EXPECT_TRUE(message.starts_with(path_.string() + ": tensor '")) << message;
    return message;
  }

  const testing::TemporaryDirectory folder_;
  const fs::path path_ = folder_.path() / "model.ckpt";
};

TEST_F(TorchWriterTest, WritesEveryDtypeThatIsRead) {
  Tensors tensors;
  for (const auto dtype :
       {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kChar, at::kByte, at::kShort,
        at::kInt, at::kLong, at::kBool, at::kComplexFloat, at::kComplexDouble}) {
    tensors.emplace_back(c10::toString(dtype), (random_tensor({5, 7}, /*seed=*/1) * 50).to(dtype));
  }
  expect_round_trip(tensors);
}

// 127.5 as float32 is 00 00 ff 42, as bfloat16 ff 42.
TEST_F(TorchWriterTest, WritesTheBitsAsTheyAre) {
  save_weights(path_, {{"w", at::tensor({127.5F}).to(at::kBFloat16)}});
  const auto tensor = Checkpoint::open(path_).tensor("w");
  EXPECT_EQ(tensor.view(at::kShort).item<int16_t>(), 0x42ff);
}

TEST_F(TorchWriterTest, WritesTensorsWithoutDimensionsAndWithoutElements) {
  expect_round_trip({{"scalar", at::scalar_tensor(3.5)},
                     {"empty", at::empty({0})},
                     {"empty matrix", at::empty({3, 0, 2})},
                     {"one", at::ones({1, 1, 1})}});
}

TEST_F(TorchWriterTest, WritesViewsAndTensorsThatShareMemory) {
  const auto base = random_tensor({6, 8}, /*seed=*/1);
  expect_round_trip({{"base", base},
                     {"again", base},
                     {"transposed", base.t()},
                     {"column", base.select(1, 3)},
                     {"steps", base.slice(1, 1, 8, 3)},
                     {"rows", base.narrow(0, 2, 3)},
                     {"expanded", base.select(1, 0).unsqueeze(1).expand({6, 5})},
                     {"conjugated", at::complex(base, base + 1).conj()},
                     {"negated", at::_neg_view(base)}});
}

// A contiguous tensor may have any stride where its size is 1; the file has the usual ones.
TEST_F(TorchWriterTest, WritesTheStridesOfTheSizes) {
  save_weights(path_, {{"w", at::arange(8.).as_strided({1, 8}, {1000, 1})}});
  EXPECT_EQ(Checkpoint::open(path_).entries()[0].strides, (std::vector<int64_t>{8, 1}));
}

TEST_F(TorchWriterTest, WritesWeightsThatRequireGradients) {
  expect_round_trip({{"w", at::ones({3}).requires_grad_()}});
}

TEST_F(TorchWriterTest, KeepsTheOrderAndAnyName) {
  expect_round_trip({{"z", at::ones({1})},
                     {"", at::ones({2})},
                     {"a.b.c", at::ones({3})},
                     {"ä\n\x01", at::ones({4})},
                     {std::string(1000, 'n'), at::ones({5})}});
}

TEST_F(TorchWriterTest, WritesMoreTensorsThanAnOldZipArchiveHolds) {
  Tensors tensors;
  const auto values = at::arange(70'000.);
  for (int64_t i = 0; i < 70'000; ++i) tensors.emplace_back(std::to_string(i), values[i]);
  save_weights(path_, tensors);
  const auto checkpoint = Checkpoint::open(path_);
  EXPECT_EQ(checkpoint.entries().size(), 70'000U);
  EXPECT_EQ(checkpoint.tensor("69999").item<double>(), 69'999);
  EXPECT_EQ(checkpoint.tensor("257").item<double>(), 257);
}

// Sizes and counts beyond 255, 65535 and 2^31 take other instructions of the pickle.
TEST_F(TorchWriterTest, WritesNumbersOfEveryWidth) {
  expect_round_trip({{"8", at::zeros({255}, at::kChar)},
                     {"16", at::zeros({256}, at::kChar)},
                     {"32", at::zeros({65'536}, at::kChar)},
                     {"64", at::zeros({int64_t{1} << 40, 0}, at::kChar)}});
}

TEST_F(TorchWriterTest, TellsHowMuchItHasWritten) {
  TorchWriter writer(path_);
  const auto before = writer.size();
  writer.add("w", at::ones({1000}));
  EXPECT_GE(writer.size(), before + 4000);
  writer.finish();
  EXPECT_EQ(writer.size(), fs::file_size(path_));
}

TEST_F(TorchWriterTest, PutsAConfigBesideTheTensors) {
  save_weights(path_, {{"w", at::ones({2})}});
  EXPECT_EQ(Checkpoint::open(path_).config_json(), std::nullopt);
  const std::string config = R"({"model_type": "gemma", "ä": 1})" + std::string(70'000, ' ');
  TorchWriter writer(path_, /*overwrite=*/true);
  writer.set_config(config);
  writer.add("config.json", at::ones({2}));  // Not the same place.
  EXPECT_TRUE(contains(message_of<std::invalid_argument>([&] { writer.set_config("\xff"); }),
                       path_.string() + ": the config is not UTF-8"));
  writer.finish();
  const auto checkpoint = Checkpoint::open(path_);
  EXPECT_EQ(checkpoint.config_json(), config);
  EXPECT_EQ(checkpoint.entries().size(), 1U);
}

TEST_F(TorchWriterTest, LeavesNothingWhenItDoesNotFinish) {
  {
    TorchWriter(path_).add("w", at::ones({2}));
  }
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

TEST_F(TorchWriterTest, ReplacesAFileOnlyWhenItIsToldTo) {
  save_weights(path_, {{"w", at::ones({2})}});
  EXPECT_TRUE(contains(
      message_of<std::runtime_error>([&] { save_weights(path_, {{"w", at::zeros({2})}}); }),
      path_.string() + ": is there already"));
  EXPECT_TRUE(tensors_equal(Checkpoint::open(path_).tensor("w"), at::ones({2})));
  expect_round_trip({{"w", at::zeros({2})}});
}

TEST_F(TorchWriterTest, RefusesTensorsThatNoFileHolds) {
  EXPECT_TRUE(contains(refusal("good", at::ones({2})), "'good' is given twice"));
  EXPECT_TRUE(contains(refusal("\xff", at::ones({2})), "'\\xff' has a name that is not UTF-8"));
  EXPECT_TRUE(contains(refusal("w", at::Tensor()), "'w' has no data"));
  EXPECT_TRUE(contains(refusal("w", at::empty({2}, at::kMeta)), "'w' has no data"));
  EXPECT_TRUE(contains(refusal("w", at::eye(2).to_sparse()), "is sparse"));
  EXPECT_TRUE(contains(refusal("w", at::ones({2}).to(at::kFloat8_e4m3fn)),
                       "'w' is float8_e4m3fn, which checkpoints do not hold"));
}

}  // namespace
}  // namespace gemma
