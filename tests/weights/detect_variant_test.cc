#include <cstdint>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/saved_models.h"
#include "tests/testing.h"

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/generate/causal_lm.h>
#include <gemma/weights/weights.h>

namespace gemma {
namespace {

namespace op = testing::op;
using testing::expect_message;
using testing::message_of;
using testing::random_gemma3;
using testing::saved;
using testing::TemporaryDirectory;

// Sizes without contents: one element seen through strides of zero.
std::string sparse_file(const std::vector<std::pair<std::string, std::vector<int64_t>>>& shapes,
                        bool quant) {
  std::vector<std::string> items;
  for (const auto& [name, sizes] : shapes) {
    items.push_back(op::text(name));
    items.push_back(op::tensor({.sizes = sizes,
                                .strides = std::vector<int64_t>(sizes.size(), 0),
                                .numel = 1,
                                .storage = quant ? "CharStorage" : "BFloat16Storage"}));
  }
  return testing::torch_file(testing::pickle_of(op::dict(items)),
                             {std::string(quant ? 1 : 2, '\0')});
}

struct VariantShapes {
  std::string name;
  std::string embedder;
  int64_t vocab_size, hidden_size, qkv_rows, intermediate_size, num_layers;
};
std::ostream& operator<<(std::ostream& out, const VariantShapes& row) { return out << row.name; }

std::string sparse_file(const VariantShapes& row, bool quant) {
  std::vector<std::pair<std::string, std::vector<int64_t>>> shapes = {
      {row.embedder, {row.vocab_size, row.hidden_size}},
      {"model.layers.0.self_attn.qkv_proj.weight", {row.qkv_rows, row.hidden_size}},
      {"model.layers.0.mlp.gate_proj.weight", {row.intermediate_size, row.hidden_size}},
      {"model.norm.weight", {row.hidden_size}}};
  for (int64_t i = 0; i < row.num_layers; ++i) {
    shapes.push_back({fmt::format("model.layers.{}.input_layernorm.weight", i), {row.hidden_size}});
  }
  return sparse_file(shapes, quant);
}

class DetectVariant : public ::testing::TestWithParam<VariantShapes> {
 protected:
  std::optional<DetectedVariant> detect(const std::string& bytes) const {
    return detect_variant(Checkpoint::open(directory_.write("model.ckpt", bytes)));
  }
  const TemporaryDirectory directory_;
};

TEST_P(DetectVariant, KnowsAVariantByItsShapes) {
  for (const bool quant : {false, true}) {
    const auto detected = detect(sparse_file(GetParam(), quant));
    ASSERT_TRUE(detected);
    EXPECT_EQ(detected->variant, GetParam().name);
    EXPECT_EQ(detected->quant, quant);
  }
}

TEST_P(DetectVariant, KnowsNoVariantWithALayerMoreOrLess) {
  auto row = GetParam();
  ++row.num_layers;
  EXPECT_FALSE(detect(sparse_file(row, /*quant=*/false)));
  row.num_layers -= 2;
  EXPECT_FALSE(detect(sparse_file(row, /*quant=*/false)));
}

constexpr auto kText = "embedder.weight";
constexpr auto kMultimodal = "text_token_embedder.weight";
INSTANTIATE_TEST_SUITE_P(
    Weights,
    DetectVariant,
    ::testing::Values(VariantShapes{"2b", kText, 256'000, 2048, 2560, 16'384, 18},
                      VariantShapes{"7b", kText, 256'000, 3072, 12'288, 24'576, 28},
                      VariantShapes{"2b-v2", kText, 256'000, 2304, 4096, 9216, 26},
                      VariantShapes{"9b", kText, 256'000, 3584, 8192, 14'336, 42},
                      VariantShapes{"27b", kText, 256'000, 4608, 8192, 36'864, 46},
                      VariantShapes{"270m", kText, 262'144, 640, 1536, 2048, 18},
                      VariantShapes{"1b", kText, 262'144, 1152, 1536, 6912, 26},
                      VariantShapes{"4b", kMultimodal, 262'144, 2560, 4096, 10'240, 34},
                      VariantShapes{"12b", kMultimodal, 262'144, 3840, 8192, 15'360, 48},
                      VariantShapes{"27b_v3", kMultimodal, 262'144, 5376, 8192, 21'504, 62},
                      VariantShapes{"vaultgemma-1b", kText, 256'000, 1152, 3072, 6912, 26}),
    [](const auto& row) {
      auto name = row.param.name;
      for (auto& c : name) {
        if (c == '-') c = '_';
      }
      return name;
    });

TEST(DetectVariantOfATinyModel, FindsNone) {
  const TemporaryDirectory directory;
  const auto path = directory.write("model.ckpt", saved(state_dict(*random_gemma3(/*seed=*/1))));
  EXPECT_FALSE(detect_variant(Checkpoint::open(path)));
}

TEST(LoadWeights, NamesTheVariantThatTheFileHas) {
  const TemporaryDirectory directory;
  const VariantShapes file{"2b", kText, 256'000, 2048, 2560, 16'384, 18};
  const auto path = directory.write("model.ckpt", sparse_file(file, /*quant=*/false)).string();
  auto model = random_gemma3(/*seed=*/2);
  const auto message = message_of<std::runtime_error>([&] { model->load_weights(path); });
  expect_message(message, path,
                 "tensor 'embedder.weight' is [256000, 2048], but the model's is [451, 33]; the "
                 "file is of variant '2b'");
}

}  // namespace
}  // namespace gemma
