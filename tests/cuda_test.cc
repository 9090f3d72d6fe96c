#include <optional>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/cuda.h>

#include "tests/testing.h"

#include <gemma/generate/causal_lm.h>

namespace gemma {
namespace {

using testing::logits_by_pieces;
using testing::near_to;
using testing::random_ids;
using testing::randomize;
using testing::tensors_equal;
using testing::tiny_config;

const torch::Device kCPU(torch::kCPU);
const torch::Device kCUDA(torch::kCUDA);

class Cuda : public ::testing::TestWithParam<Architecture> {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) {
      GTEST_SKIP() << "no CUDA device, or LibTorch was built without CUDA";
    }
  }

  // The same weights for the same config, made on the CPU.
  static GemmaForCausalLM random_model(GemmaConfig config, torch::Device device) {
    config.tokenizer = testing::data_path("tiny.model").string();
    const DefaultDtypeGuard guard(config.get_dtype());
    GemmaForCausalLM model(config);
    randomize(*model, /*seed=*/1);
    model->to(device);
    return model;
  }
};

INSTANTIATE_TEST_SUITE_P(GemmaForCausalLM,
                         Cuda,
                         ::testing::ValuesIn(testing::kArchitectures),
                         testing::architecture_name);

TEST_P(Cuda, GivesTheLogitsOfTheCpu) {
  for (const bool quant : {false, true}) {
    SCOPED_TRACE(quant ? "int8" : "float32");
    auto config = tiny_config(GetParam());
    config.quant = quant;
    const std::vector<int64_t> pieces = {4, 1, 1, 1, 1, 1};  // A prompt and five steps.
    const auto got =
        logits_by_pieces(random_model(config, kCUDA), random_ids(/*rows=*/2, /*length=*/9), pieces);
    const auto want =
        logits_by_pieces(random_model(config, kCPU), random_ids(/*rows=*/2, /*length=*/9), pieces);
    for (size_t i = 0; i < pieces.size(); ++i) {
      EXPECT_TRUE(got[i].is_cuda());
      EXPECT_TRUE(near_to(got[i].cpu(), want[i], 1e-5)) << "piece " << i;
    }
  }
}

TEST_P(Cuda, GivesFiniteLogitsInBfloat16) {
  for (const bool quant : {false, true}) {
    SCOPED_TRACE(quant ? "int8" : "bfloat16");
    auto config = tiny_config(GetParam());
    config.dtype = "bfloat16";
    config.quant = quant;
    const auto logits =
        logits_by_pieces(random_model(config, kCUDA), random_ids(/*rows=*/2, /*length=*/9), {4, 5})
            .back();
    EXPECT_EQ(logits.scalar_type(), at::kBFloat16);
    EXPECT_EQ(logits.sizes(), (std::vector<int64_t>{2, 451}));
    EXPECT_TRUE(at::isfinite(logits).all().item<bool>());
  }
}

TEST_P(Cuda, GeneratesTheTextOfTheCpu) {
  const auto config = tiny_config(GetParam());
  const std::vector<std::string> prompts = {"The ferry leaves the harbour", "We"};
  const auto generate = [&](torch::Device device) {
    return random_model(config, device)
        ->generate(prompts, device, /*output_len=*/8, /*temperature=*/std::nullopt);
  };
  EXPECT_EQ(generate(kCUDA), generate(kCPU));
}

TEST_P(Cuda, GeneratesTheSameTextForTheSameSeed) {
  auto model = random_model(tiny_config(GetParam()), kCUDA);
  const auto generate = [&](uint64_t seed) {
    at::manual_seed(seed);
    return model->generate("The ferry", kCUDA, /*output_len=*/10);
  };
  const auto first = generate(3);
  EXPECT_EQ(generate(3), first);
  EXPECT_NE(generate(4), first);
}

TEST_P(Cuda, KeepsDtypesAndRotaryTablesOnTheWayToTheDevice) {
  auto config = tiny_config(GetParam());
  config.quant = true;
  const auto want = random_model(config, kCPU);
  auto model = random_model(config, kCUDA);
  EXPECT_TRUE(model->embedder->weight.is_cuda());
  EXPECT_TRUE(tensors_equal(model->embedder->weight.cpu(), want->embedder->weight));
  const auto tables = want->named_buffers();
  for (const auto& item : model->named_buffers()) {
    EXPECT_TRUE(item.value().is_cuda()) << item.key();
    EXPECT_TRUE(tensors_equal(item.value().cpu(), tables[item.key()])) << item.key();
  }
  model->to(kCUDA, torch::kHalf);
  EXPECT_EQ(model->embedder->weight.scalar_type(), at::kChar);
  EXPECT_EQ(model->embedder->weight_scaler.scalar_type(), at::kHalf);
  EXPECT_EQ(model->named_buffers().front().value().scalar_type(), at::kComplexFloat);
}

}  // namespace
}  // namespace gemma
