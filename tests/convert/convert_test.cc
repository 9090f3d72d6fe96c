#include <cmath>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/testing.h"

#include <gemma/checkpoint/torch_writer.h>
#include <gemma/convert/convert.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::random_tensor;
using testing::tensors_equal;
using testing::tiny_config;

constexpr ConvertOptions kInt8{.quant = Quant::kInt8, .dtype = std::nullopt};

StateDict random_state(at::ScalarType dtype, bool quant = false) {
  const DefaultDtypeGuard guard(dtype);
  auto config = tiny_config(Architecture::kGemma3);
  config.quant = quant;
  GemmaForCausalLM model(config);
  testing::randomize(*model, /*seed=*/1);
  return state_dict(*model);
}

StateDict without_rope_tables(StateDict tensors) {
  std::erase_if(tensors, [](const auto& item) { return is_rope_table(item.first); });
  return tensors;
}

void expect_equal(const StateDict& got, const StateDict& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].first, want[i].first);
    EXPECT_TRUE(tensors_equal(got[i].second, want[i].second)) << got[i].first;
  }
}

// Each weight at once and in `dtype`, where convert_weights goes by blocks.
StateDict quantized(const StateDict& tensors, at::ScalarType dtype) {
  StateDict result;
  for (const auto& [name, tensor] : tensors) {
    if (!is_quantized_weight(name)) {
      result.emplace_back(name, tensor.to(dtype));
      continue;
    }
    const auto weight = quantize_weight(tensor.to(dtype));
    result.emplace_back(name, weight.weight);
    result.emplace_back(name + "_scaler", weight.weight_scaler);
  }
  return result;
}

class ConvertWeights : public ::testing::Test {
 protected:
  Checkpoint save(const StateDict& tensors) const {
    const auto path = folder_.path() / "model.ckpt";
    save_weights(path, tensors, /*overwrite=*/true);
    return Checkpoint::open(path);
  }

  StateDict convert(const StateDict& tensors, const ConvertOptions& options) const {
    const auto checkpoint = save(tensors);
    StateDict result;
    int64_t bytes = 0;
    convert_weights(checkpoint, options, [&](const auto& name, const auto& tensor) {
      result.emplace_back(name, tensor);
      bytes += static_cast<int64_t>(tensor.nbytes());
    });
    EXPECT_EQ(converted_bytes(checkpoint, options), bytes);
    return result;
  }

  std::string refusal(const StateDict& tensors, const ConvertOptions& options) const {
    const auto checkpoint = save(tensors);
    auto message = message_of<std::runtime_error>(
        [&] { convert_weights(checkpoint, options, [](const auto&, const auto&) {}); });
    EXPECT_TRUE(message.starts_with(checkpoint.path() + ": ")) << message;
    return message;
  }

  const testing::TemporaryDirectory folder_;
};

TEST_F(ConvertWeights, KeepsEverythingButRopeTables) {
  const auto state = random_state(at::kBFloat16);
  expect_equal(convert(state, {}), without_rope_tables(state));
}

TEST_F(ConvertWeights, ChangesTheDtypeOfFloats) {
  auto state = without_rope_tables(random_state(at::kBFloat16, /*quant=*/true));
  state.emplace_back("steps", at::scalar_tensor(7, at::kLong));
  state.emplace_back("rate", at::scalar_tensor(0.5, at::kDouble));
  auto want = state;
  for (auto& item : want) {
    if (item.second.is_floating_point()) item.second = item.second.to(at::kFloat);
  }
  expect_equal(convert(state, {.quant = std::nullopt, .dtype = at::kFloat}), want);
}

TEST_F(ConvertWeights, QuantisesLinearsAndEmbeddings) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    SCOPED_TRACE(c10::toString(dtype));
    const auto state = random_state(dtype);
    expect_equal(convert(state, kInt8), quantized(without_rope_tables(state), dtype));
  }
}

TEST_F(ConvertWeights, MakesWhatAQuantisedModelHas) {
  const auto got = convert(random_state(at::kBFloat16), kInt8);
  const auto want = without_rope_tables(random_state(at::kBFloat16, /*quant=*/true));
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].first, want[i].first);
    EXPECT_EQ(got[i].second.sizes(), want[i].second.sizes()) << got[i].first;
    EXPECT_EQ(got[i].second.scalar_type(), want[i].second.scalar_type()) << got[i].first;
  }
}

TEST_F(ConvertWeights, GivesFloatsTheDtypeBeforeItQuantises) {
  const auto state = random_state(at::kFloat);
  expect_equal(convert(state, {.quant = Quant::kInt8, .dtype = at::kBFloat16}),
               quantized(without_rope_tables(state), at::kBFloat16));
}

// Blocks are of 16 MiB.
TEST_F(ConvertWeights, TakesTensorsLargerThanABlock) {
  const StateDict state{{"embedder.weight", random_tensor({5003, 1023}, /*seed=*/1)}};
  expect_equal(convert(state, kInt8), quantized(state, at::kFloat));
  expect_equal(convert(state, {.quant = std::nullopt, .dtype = at::kHalf}),
               {{"embedder.weight", state[0].second.to(at::kHalf)}});
}

// run_multimodal.py of the reference loads strictly.
TEST_F(ConvertWeights, KeepsRopeTablesOfMultimodalModels) {
  const StateDict state{{"text_token_embedder.weight", at::ones({2, 2})},
                        {"global_freqs_cis", at::ones({2, 2}, at::kComplexFloat)}};
  expect_equal(convert(state, {}), state);
}

TEST_F(ConvertWeights, ReportsProgressInTheInputsTerms) {
  const auto state = random_state(at::kFloat);
  const auto want = without_rope_tables(state);
  int64_t bytes = 0;
  for (const auto& item : want) bytes += static_cast<int64_t>(item.second.nbytes());
  std::vector<LoadProgress> calls;
  convert_weights(
      save(state), kInt8, [](const auto&, const auto&) {},
      [&](const LoadProgress& call) { calls.push_back(call); });
  ASSERT_EQ(calls.size(), want.size());
  for (size_t i = 0; i < calls.size(); ++i) {
    EXPECT_EQ(calls[i].tensor, want[i].first);
    EXPECT_EQ(calls[i].tensors_done, static_cast<int64_t>(i) + 1);
    EXPECT_EQ(calls[i].tensors_total, static_cast<int64_t>(want.size()));
    EXPECT_EQ(calls[i].bytes_total, bytes);
  }
  EXPECT_EQ(calls.back().bytes_done, bytes);
}

TEST_F(ConvertWeights, RefusesWhatIsQuantisedAlready) {
  const auto state = random_state(at::kFloat, /*quant=*/true);
  EXPECT_TRUE(contains(refusal(state, kInt8), "tensor 'embedder.weight' is quantised already; "));
  const StateDict only_scaled{{"embedder.weight", at::ones({2, 2})},
                              {"embedder.weight_scaler", at::ones({2})}};
  EXPECT_TRUE(contains(refusal(only_scaled, kInt8), "is quantised already"));
}

TEST_F(ConvertWeights, RefusesAnotherLayout) {
  EXPECT_TRUE(contains(refusal({{"transformer.wte.weight", at::ones({2, 2})}}, {}),
                       "has no tensor 'embedder.weight'"));
}

TEST_F(ConvertWeights, RefusesWeightsThatCannotBeQuantised) {
  const auto weight = [](const at::Tensor& tensor) {
    return StateDict{{"embedder.weight", tensor}};
  };
  EXPECT_TRUE(contains(refusal(weight(at::ones({2, 2, 1})), kInt8),
                       "tensor 'embedder.weight' is float32 [2, 2, 1], but only a matrix"));
  EXPECT_TRUE(contains(refusal(weight(at::scalar_tensor(1)), kInt8), "is float32 []"));
  EXPECT_TRUE(contains(refusal(weight(at::ones({2, 2}, at::kLong)), kInt8), "is int64 [2, 2]"));
  EXPECT_TRUE(contains(refusal(weight(at::full({2, 2}, std::nan(""))), kInt8),
                       "tensor 'embedder.weight': quantize_weight: the weight holds NaN"));
}

TEST_F(ConvertWeights, RefusesNumbersThatFloat16CannotHold) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    auto weight = at::ones({4, 3}, dtype);
    weight[2][1] = 1e6;
    const auto source = save({{"embedder.weight", weight}});
    const auto message = message_of<std::runtime_error>([&] {
      convert_weights(source, {.quant = std::nullopt, .dtype = at::kHalf},
                      [](const auto&, const auto&) {});
    });
    EXPECT_TRUE(contains(message, "'embedder.weight' has numbers that float16 cannot hold; use"));
  }
}

}  // namespace
}  // namespace gemma
