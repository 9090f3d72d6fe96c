#include <fstream>
#include <new>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/generate/causal_lm.h>
#include <gemma/modules/linear.h>
#include <gemma/modules/module.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::randomize;
using testing::tensors_equal;
using testing::tiny_config;

TEST(ToString, ShowsTheTreeAsPythonDoes) {
  auto config = tiny_config(Architecture::kGemma1);
  const auto want = R"(GemmaForCausalLM(
  (embedder): Embedding(451, 33)
  (model): GemmaModel(
    (layers): ModuleList(
      (0-1): 2 x GemmaDecoderLayer(
        (self_attn): GemmaAttention(
          (qkv_proj): Linear(in_features=33, out_features=120, bias=False)
          (o_proj): Linear(in_features=72, out_features=33, bias=False)
        )
        (mlp): GemmaMLP(
          (gate_proj): Linear(in_features=33, out_features=53, bias=False)
          (up_proj): Linear(in_features=33, out_features=53, bias=False)
          (down_proj): Linear(in_features=53, out_features=33, bias=False)
        )
        (input_layernorm): RMSNorm((33,), eps=1e-06)
        (post_attention_layernorm): RMSNorm((33,), eps=1e-06)
      )
    )
    (norm): RMSNorm((33,), eps=1e-06)
  )
  (sampler): Sampler()
))";
  EXPECT_EQ(to_string(*GemmaForCausalLM(config)), want);
}

TEST(ToString, NamesALayerAloneWhenThereIsOne) {
  auto config = tiny_config(Architecture::kGemma2);
  config.num_hidden_layers = 1;
  EXPECT_TRUE(contains(to_string(*GemmaModel(config)), "    (0): Gemma2DecoderLayer(\n"));
}

TEST(ToString, TellsWhatConstructorsWereTold) {
  EXPECT_EQ(to_string(*Linear(/*in_features=*/3, /*out_features=*/5, /*quant=*/true)),
            "Linear(in_features=3, out_features=5, bias=False, quant=True)");
  EXPECT_EQ(to_string(*Embedding(/*num_embeddings=*/3, /*embedding_dim=*/5, /*quant=*/true)),
            "Embedding(3, 5, quant=True)");
  EXPECT_EQ(to_string(*RMSNorm(/*dim=*/3, /*eps=*/0.5, /*add_unit_offset=*/false)),
            "RMSNorm((3,), eps=0.5, add_unit_offset=False)");
}

TEST(Module, CastsFloatsAndLeavesInt8AndComplexNumbersAsTheyAre) {
  auto config = tiny_config(Architecture::kGemma3);
  config.quant = true;
  GemmaForCausalLM model(config);
  randomize(*model, /*seed=*/1);
  const auto weight = model->embedder->weight.clone();
  const auto scaler = model->embedder->weight_scaler.clone();
  const auto table = model->local_freqs_cis.clone();

  model->to(torch::kBFloat16);
  EXPECT_TRUE(tensors_equal(model->embedder->weight, weight));
  EXPECT_TRUE(tensors_equal(model->embedder->weight_scaler, scaler.to(torch::kBFloat16)));
  EXPECT_EQ(model->model->norm->weight.scalar_type(), torch::kBFloat16);
  EXPECT_TRUE(tensors_equal(model->local_freqs_cis, table));
  EXPECT_EQ(model->global_freqs_cis.scalar_type(), torch::kComplexFloat);
}

TEST(Module, CastsWithADeviceAsWithout) {
  Linear linear(/*in_features=*/3, /*out_features=*/5, /*quant=*/true);
  randomize(*linear, /*seed=*/1);
  linear->to(torch::Device(torch::kCPU), torch::kHalf);
  EXPECT_EQ(linear->weight.scalar_type(), torch::kChar);
  EXPECT_EQ(linear->weight_scaler.scalar_type(), torch::kHalf);
}

TEST(Module, KeepsFloatsThatHaveTheDtypeAlready) {
  Linear linear(/*in_features=*/3, /*out_features=*/5, /*quant=*/false);
  const void* const data = linear->weight.data_ptr();
  linear->to(torch::kFloat);
  EXPECT_EQ(linear->weight.data_ptr(), data);
}

TEST(Module, RefusesTheMetaDevice) {
  GemmaForCausalLM model(tiny_config(Architecture::kGemma3));
  randomize(*model, /*seed=*/1);
  const auto weight = model->embedder->weight.clone();
  const auto message = message_of<std::invalid_argument>([&] { model->to(torch::kMeta); });
  EXPECT_TRUE(contains(message, "to: device is meta, which would discard the weights"));
  EXPECT_TRUE(tensors_equal(model->embedder->weight, weight));
}

TEST(Module, WantsNoGradients) {
  const GemmaForCausalLM model(tiny_config(Architecture::kGemma3));
  for (const auto& parameter : model->parameters()) EXPECT_FALSE(parameter.requires_grad());
}

TEST(DefaultDtypeGuard, SetsTheDefaultDtypeUntilItEnds) {
  const auto before = default_dtype();
  {
    const DefaultDtypeGuard outer(torch::kBFloat16);
    EXPECT_EQ(default_dtype(), torch::kBFloat16);
    {
      const DefaultDtypeGuard inner(torch::kHalf);
      EXPECT_EQ(default_dtype(), torch::kHalf);
    }
    EXPECT_EQ(default_dtype(), torch::kBFloat16);
    EXPECT_EQ(at::ones({1}).scalar_type(), torch::kBFloat16);
  }
  EXPECT_EQ(default_dtype(), before);
}

TEST(DefaultDtypeGuard, EndsWithAnExceptionToo) {
  const auto before = default_dtype();
  const auto construct = [] {
    const DefaultDtypeGuard guard(torch::kBFloat16);
    auto config = tiny_config(Architecture::kGemma1);
    config.num_hidden_layers = 0;
    return GemmaForCausalLM(config);
  };
  EXPECT_THROW(construct(), std::invalid_argument);
  EXPECT_EQ(default_dtype(), before);
}

TEST(CheckSize, RefusesANegativeSizeNamingIt) {
  check_size("Linear", "in_features", 0);
  const auto message =
      message_of<std::invalid_argument>([] { check_size("Linear", "in_features", -3); });
  EXPECT_EQ(message, "Linear: in_features is -3, but a size is 0 or more");
}

TEST(CheckSize, IsAskedOfEverySize) {
  for (const bool quant : {false, true}) {
    EXPECT_THROW(Linear(-3, 4, quant), std::invalid_argument);
    EXPECT_THROW(Linear(3, -4, quant), std::invalid_argument);
    EXPECT_THROW(Embedding(-3, 4, quant), std::invalid_argument);
    EXPECT_THROW(Embedding(3, -4, quant), std::invalid_argument);
  }
  EXPECT_THROW(RMSNorm(-3), std::invalid_argument);
}

// Resident memory of this process.
int64_t resident_bytes() {
  int64_t total = 0;
  int64_t resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

TEST(Uninitialized, TakesMemoryWhenItIsWrittenTo) {
  const auto before = resident_bytes();
  const auto terabyte = uninitialized({int64_t{1} << 20, int64_t{1} << 20}, torch::kChar);
  EXPECT_EQ(terabyte.numel(), int64_t{1} << 40);
  terabyte[(int64_t{1} << 20) - 1][7] = 3;
  EXPECT_EQ(terabyte[(int64_t{1} << 20) - 1][7].item<int>(), 3);
  EXPECT_LT(resident_bytes() - before, int64_t{64} << 20);
}

TEST(Uninitialized, HasTheSizesAndDtypeItWasGiven) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kChar}) {
    const auto tensor = uninitialized({3, 5}, dtype);
    EXPECT_EQ(tensor.sizes(), (std::vector<int64_t>{3, 5}));
    EXPECT_EQ(tensor.scalar_type(), dtype);
    EXPECT_TRUE(tensor.is_contiguous());
    EXPECT_FALSE(tensor.requires_grad());
  }
  EXPECT_EQ(uninitialized({0, 5}, torch::kFloat).sizes(), (std::vector<int64_t>{0, 5}));
}

TEST(Uninitialized, ThrowsBadAllocForMoreThanAnAddressSpace) {
  constexpr auto kHuge = int64_t{1} << 33;
  EXPECT_THROW(uninitialized({kHuge, kHuge}, torch::kChar), std::bad_alloc);
  // 2^64 + 2^33 elements; 2^63 elements of two bytes.
  EXPECT_THROW(uninitialized({kHuge, (int64_t{1} << 31) + 1}, torch::kChar), std::bad_alloc);
  EXPECT_THROW(uninitialized({kHuge, int64_t{1} << 30}, torch::kHalf), std::bad_alloc);
}

TEST(Uninitialized, OwnsItsMemory) {
  auto tensor = uninitialized({1000}, torch::kFloat);
  tensor.fill_(7);
  const auto part = tensor.narrow(0, 990, 10);
  tensor.reset();
  EXPECT_TRUE((part == 7).all().item<bool>());
}

}  // namespace
}  // namespace gemma
