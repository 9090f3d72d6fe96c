#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/checkpoint/errors.h>
#include <gemma/generate/causal_lm.h>
#include <gemma/modules/masks.h>
#include <gemma/ops/rotary.h>

namespace gemma {
namespace {

using testing::contains;
using testing::logits_by_pieces;
using testing::message_of;
using testing::parameter_names;
using testing::random_ids;
using testing::randomize;
using testing::tensors_close;
using testing::tensors_equal;
using testing::tiny_config;
namespace oracle = testing::oracle;

const torch::Device kCPU(torch::kCPU);

GemmaForCausalLM random_model(GemmaConfig config, bool with_tokenizer = false) {
  if (with_tokenizer) config.tokenizer = testing::data_path("tiny.model").string();
  const DefaultDtypeGuard guard(config.get_dtype());
  GemmaForCausalLM model(config);
  randomize(*model, /*seed=*/1);
  return model;
}

class CausalLMOf : public ::testing::TestWithParam<Architecture> {};
INSTANTIATE_TEST_SUITE_P(GemmaForCausalLM,
                         CausalLMOf,
                         ::testing::ValuesIn(testing::kArchitectures),
                         testing::architecture_name);

TEST_P(CausalLMOf, AgreesWithFloat64) {
  for (const bool quant : {false, true}) {
    SCOPED_TRACE(quant ? "int8" : "float32");
    auto config = tiny_config(GetParam());
    config.quant = quant;
    auto model = random_model(config);
    const auto ids = random_ids(/*rows=*/2, /*length=*/9);
    const auto want = oracle::logits(oracle::weights_of(*model), config, ids);
    EXPECT_TRUE(tensors_close(logits_by_pieces(model, ids, {9}).front(), want.select(1, 8)));
  }
}

TEST_P(CausalLMOf, GivesTokenByTokenWhatItGivesAtOnce) {
  auto model = random_model(tiny_config(GetParam()));
  const auto ids = random_ids(/*rows=*/2, /*length=*/9);
  const auto at_once = logits_by_pieces(model, ids, {9}).back();
  for (const auto& pieces :
       std::vector<std::vector<int64_t>>{{1, 1, 1, 1, 1, 1, 1, 1, 1}, {5, 1, 1, 1, 1}, {2, 4, 3}}) {
    SCOPED_TRACE(fmt::format("pieces {}", fmt::join(pieces, " ")));
    EXPECT_TRUE(tensors_close(logits_by_pieces(model, ids, pieces).back(), at_once));
  }
}

TEST_P(CausalLMOf, DecodesBeyondTheWindowAsFloat64Does) {
  const auto config = tiny_config(GetParam());
  auto model = random_model(config);
  const auto ids = random_ids(/*rows=*/1, /*length=*/12);
  const auto want = oracle::logits(oracle::weights_of(*model), config, ids);
  const auto got = logits_by_pieces(model, ids, std::vector<int64_t>(12, 1));
  for (int64_t i = 0; i < 12; ++i) {
    EXPECT_TRUE(tensors_close(got[static_cast<size_t>(i)], want.select(1, i))) << "token " << i;
  }
}

TEST_P(CausalLMOf, ComputesTheRowsOfABatchIndependently) {
  auto model = random_model(tiny_config(GetParam()));
  const auto ids = random_ids(/*rows=*/3, /*length=*/6);
  const auto batch = logits_by_pieces(model, ids, {4, 2}).back();
  for (int64_t row = 0; row < 3; ++row) {
    EXPECT_TRUE(tensors_close(batch.narrow(0, row, 1),
                              logits_by_pieces(model, ids.narrow(0, row, 1), {4, 2}).back()))
        << "row " << row;
  }
}

TEST_P(CausalLMOf, GivesTokensAndLogitsInTheWeightsDtype) {
  for (const auto* const dtype : {"float32", "bfloat16"}) {
    for (const bool quant : {false, true}) {
      SCOPED_TRACE(std::string(dtype) + (quant ? ", int8" : ""));
      auto config = tiny_config(GetParam());
      config.dtype = dtype;
      config.quant = quant;
      auto model = random_model(config);
      const auto logits = logits_by_pieces(model, random_ids(/*rows=*/2, /*length=*/5), {4, 1});
      for (const auto& step : logits) {
        EXPECT_EQ(step.sizes(), (std::vector<int64_t>{2, 451}));
        EXPECT_EQ(step.scalar_type(), config.get_dtype());
        EXPECT_TRUE(at::isfinite(step).all().item<bool>());
      }
    }
  }
}

TEST_P(CausalLMOf, IsNotFarFromItselfInBfloat16) {
  auto config = tiny_config(GetParam());
  auto exact = random_model(config);
  exact->to(torch::kBFloat16);
  exact->to(torch::kFloat);  // Weights that bfloat16 can hold.
  config.dtype = "bfloat16";
  auto rounded = random_model(config);
  const auto ids = random_ids(/*rows=*/1, /*length=*/5);
  const auto want = logits_by_pieces(exact, ids, {5}).back();
  const auto got = logits_by_pieces(rounded, ids, {5}).back().to(at::kFloat);
  EXPECT_LT((got - want).abs().max().item<float>(), 0.1 * want.abs().max().item<float>());
}

// One step of a model with a single sequence.
struct Step {
  at::Tensor ids = random_ids(/*rows=*/1, /*length=*/4);
  at::Tensor positions = at::arange(4);
  std::optional<at::Tensor> kv_write_indices = std::nullopt;
  std::vector<KVCache> caches = {};
  at::Tensor output_positions = at::full({1}, 3, at::kLong);
  std::optional<at::Tensor> temperatures = std::nullopt;
};

std::pair<at::Tensor, at::Tensor> run(GemmaForCausalLM model, const Step& step) {
  const auto caches = step.caches.empty()
                          ? model->make_kv_caches(/*batch_size=*/1, /*max_seq_len=*/8, kCPU)
                          : step.caches;
  const auto window = model->config().sliding_window_size;
  return model->forward(
      step.ids, step.positions, step.kv_write_indices, caches,
      causal_mask(step.positions, /*max_seq_len=*/8), step.output_positions, step.temperatures,
      /*top_ps=*/at::ones({1}), /*top_ks=*/at::full({1}, 451, at::kLong),
      window ? std::optional(sliding_window_mask(step.positions, /*max_seq_len=*/8, *window))
             : std::nullopt);
}

// As in the reference, which sets them to input_positions.
TEST(GemmaForCausalLM, WritesTheCacheAtTheInputPositionsWhateverTheWriteIndices) {
  auto model = random_model(tiny_config(Architecture::kGemma2));
  const auto caches = model->make_kv_caches(/*batch_size=*/1, /*max_seq_len=*/8, kCPU);
  const auto want = run(model, {}).second;
  const auto got =
      run(model, {.kv_write_indices = at::full({4}, 7, at::kLong), .caches = caches}).second;
  EXPECT_TRUE(tensors_equal(got, want));
  for (const auto& cache : caches) {
    EXPECT_TRUE((cache.k.narrow(1, 0, 4) != 0).any(-1).all().item<bool>());
    EXPECT_TRUE((cache.k.narrow(1, 4, 4) == 0).all().item<bool>());
  }
}

TEST_P(CausalLMOf, GivesTheLogitsOfTheOutputPositionWhateverFollowsIt) {
  auto model = random_model(tiny_config(GetParam()));
  Step step{.output_positions = at::full({1}, 2, at::kLong)};
  const auto want = run(model, step).second;
  step.ids = step.ids.clone();
  step.ids.select(1, 3).fill_(450);
  EXPECT_TRUE(tensors_equal(run(model, step).second, want));
  step.ids.select(1, 1).fill_(450);
  EXPECT_FALSE(tensors_close(run(model, step).second, want));
}

TEST(GemmaForCausalLM, DividesTheLogitsByTheTemperature) {
  auto model = random_model(tiny_config(Architecture::kGemma2));
  const auto greedy = run(model, {}).second;
  const auto sampled = run(model, {.temperatures = at::full({1}, 0.5)}).second;
  EXPECT_TRUE(tensors_equal(sampled, greedy / 0.5));
}

TEST(GemmaForCausalLM, CapsItsLogits) {
  auto config = tiny_config(Architecture::kGemma2);
  config.final_logit_softcapping = 0.5;
  const auto logits = run(random_model(config), {}).second;
  EXPECT_LE(logits.abs().max().item<float>(), 0.5F);
}

TEST(GemmaForCausalLM, HasTheRotaryTablesOfItsArchitecture) {
  const auto config = tiny_config(Architecture::kGemma3);
  const GemmaForCausalLM gemma3(config);
  EXPECT_FALSE(gemma3->freqs_cis.defined());
  EXPECT_TRUE(tensors_equal(gemma3->local_freqs_cis, precompute_freqs_cis(24, 2 * 64, 10'000)));
  EXPECT_TRUE(tensors_equal(gemma3->global_freqs_cis, precompute_freqs_cis(24, 2 * 64, 1'000'000)));
  EXPECT_EQ(gemma3->named_buffers().keys(),
            (std::vector<std::string>{"local_freqs_cis", "global_freqs_cis"}));

  const GemmaForCausalLM gemma1(tiny_config(Architecture::kGemma1));
  EXPECT_TRUE(tensors_equal(gemma1->freqs_cis, precompute_freqs_cis(24, 2 * 64)));
  EXPECT_EQ(gemma1->named_buffers().keys(), std::vector<std::string>{"freqs_cis"});
}

TEST(GemmaForCausalLM, HasTheDefaultWaveLengthForATypeThatNamesNone) {
  auto config = tiny_config(Architecture::kGemma3);
  config.rope_wave_length->erase(AttentionType::kLocalSliding);
  EXPECT_TRUE(tensors_equal(GemmaForCausalLM(config)->local_freqs_cis,
                            precompute_freqs_cis(24, 2 * 64, 10'000)));
}

TEST(GemmaForCausalLM, ScalesTheRotaryFrequenciesOfGlobalLayers) {
  auto config = tiny_config(Architecture::kGemma3);
  config.rope_scaling_factor = 8;
  const GemmaForCausalLM model(config);
  EXPECT_TRUE(
      tensors_equal(model->global_freqs_cis, precompute_freqs_cis(24, 2 * 64, 1'000'000, 8)));
  EXPECT_TRUE(tensors_equal(model->local_freqs_cis, precompute_freqs_cis(24, 2 * 64, 10'000)));
}

TEST(GemmaForCausalLM, HasTheReferencesParameters) {
  auto config = tiny_config(Architecture::kGemma1);
  config.num_hidden_layers = 1;
  config.quant = true;
  EXPECT_EQ(
      parameter_names(*GemmaForCausalLM(config)),
      (std::vector<std::string>{
          "embedder.weight", "embedder.weight_scaler", "model.layers.0.self_attn.qkv_proj.weight",
          "model.layers.0.self_attn.qkv_proj.weight_scaler",
          "model.layers.0.self_attn.o_proj.weight", "model.layers.0.self_attn.o_proj.weight_scaler",
          "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.gate_proj.weight_scaler",
          "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight_scaler",
          "model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.down_proj.weight_scaler",
          "model.layers.0.input_layernorm.weight", "model.layers.0.post_attention_layernorm.weight",
          "model.norm.weight"}));
}

TEST(GemmaForCausalLM, RefusesAHiddenSizeThatHeadsDoNotDivide) {
  auto config = tiny_config(Architecture::kGemma1);
  config.hidden_size = 34;
  const auto message = message_of<std::invalid_argument>([&] { GemmaForCausalLM{config}; });
  EXPECT_TRUE(contains(message, "hidden_size (34) must be a multiple of num_attention_heads (3)"));
}

TEST(GemmaForCausalLM, ThrowsNamingTheTokenizerThatIsMissing) {
  auto config = tiny_config(Architecture::kGemma1);
  config.tokenizer = "no/such/tokenizer.model";
  const auto message = message_of<FileNotFound>([&] { GemmaForCausalLM{config}; });
  EXPECT_TRUE(contains(message, "no/such/tokenizer.model"));
}

TEST(GemmaForCausalLM, MakesCachesOfZerosInTheConfigsDtype) {
  auto config = tiny_config(Architecture::kGemma3);
  config.dtype = "bfloat16";
  const auto caches =
      random_model(config)->make_kv_caches(/*batch_size=*/2, /*max_seq_len=*/5, kCPU);
  ASSERT_EQ(caches.size(), 7U);
  for (const auto& cache : caches) {
    EXPECT_TRUE(tensors_equal(cache.k, at::zeros({2, 5, 1, 24}, at::kBFloat16)));
    EXPECT_TRUE(tensors_equal(cache.v, at::zeros({2, 5, 1, 24}, at::kBFloat16)));
  }
  EXPECT_NE(caches[0].k.data_ptr(), caches[1].k.data_ptr());
}

// generate() by its definition: all of the sequence again for each token, in float64.
std::string greedy_by_oracle(GemmaForCausalLM model,
                             const std::string& prompt,
                             int64_t output_len) {
  const auto weights = oracle::weights_of(*model);
  const auto& tokenizer = model->tokenizer();
  auto tokens = tokenizer.encode(prompt);
  const auto prompt_len = static_cast<std::ptrdiff_t>(tokens.size());
  for (int64_t i = 0; i < output_len; ++i) {
    const auto ids = at::tensor(tokens, at::kLong).unsqueeze(0);
    const auto logits = oracle::logits(weights, model->config(), ids);
    tokens.push_back(logits.select(1, ids.size(1) - 1).argmax().item<int64_t>());
  }
  const auto end = std::find(tokens.begin() + prompt_len, tokens.end(), tokenizer.eos_id());
  return tokenizer.decode({tokens.begin() + prompt_len, end});
}

TEST_P(CausalLMOf, GeneratesTheLikeliestTokens) {
  auto model = random_model(tiny_config(GetParam()), /*with_tokenizer=*/true);
  const auto text = model->generate("The ferry leaves", kCPU, /*output_len=*/10,
                                    /*temperature=*/std::nullopt);
  EXPECT_EQ(text, greedy_by_oracle(model, "The ferry leaves", 10));
  EXPECT_FALSE(text.empty());
}

TEST_P(CausalLMOf, GeneratesForABatchWhatItGeneratesForEachPrompt) {
  auto model = random_model(tiny_config(GetParam()), /*with_tokenizer=*/true);
  const std::vector<std::string> prompts = {"The ferry leaves the harbour", "We", "The old clock",
                                            ""};
  const auto texts = model->generate(prompts, kCPU, /*output_len=*/7, /*temperature=*/std::nullopt);
  ASSERT_EQ(texts.size(), prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(texts[i], model->generate(prompts[i], kCPU, /*output_len=*/7,
                                        /*temperature=*/std::nullopt))
        << "prompt " << i;
  }
}

TEST(GemmaForCausalLM, GeneratesInEveryDtypeQuantizedOrNot) {
  for (const auto* const dtype : {"float32", "bfloat16", "float16"}) {
    for (const bool quant : {false, true}) {
      SCOPED_TRACE(std::string(dtype) + (quant ? ", int8" : ""));
      auto config = tiny_config(Architecture::kGemma3);
      config.dtype = dtype;
      config.quant = quant;
      auto model = random_model(config, /*with_tokenizer=*/true);
      EXPECT_NO_THROW(model->generate("The ferry", kCPU, /*output_len=*/5));
    }
  }
}

// The default dtype is that of the caller, who may have left it set: as a notebook of Google's
// does.
TEST(GemmaForCausalLM, GeneratesUnderADefaultDtypeOfFloat16) {
  auto model = random_model(tiny_config(Architecture::kGemma2), /*with_tokenizer=*/true);
  const auto want = model->generate("The ferry", kCPU, /*output_len=*/5, std::nullopt);
  const DefaultDtypeGuard guard(torch::kHalf);
  EXPECT_EQ(model->generate("The ferry", kCPU, /*output_len=*/5, std::nullopt), want);
}

TEST(GemmaForCausalLM, GeneratesTheSameTextForTheSameSeed) {
  auto model = random_model(tiny_config(Architecture::kGemma2), /*with_tokenizer=*/true);
  const std::vector<std::string> prompts = {"The ferry leaves", "We"};
  const auto generate = [&](uint64_t seed) {
    at::manual_seed(seed);
    return model->generate(prompts, kCPU, /*output_len=*/10);
  };
  const auto first = generate(3);
  EXPECT_EQ(generate(3), first);
  EXPECT_NE(generate(4), first);
}

TEST_P(CausalLMOf, IsGreedyAtTemperatureZeroAndWhenOneTokenIsLeft) {
  auto model = random_model(tiny_config(GetParam()), /*with_tokenizer=*/true);
  const auto generate = [&](double temperature, double top_p, int64_t top_k) {
    return model->generate("The ferry", kCPU, /*output_len=*/6, temperature, top_p, top_k);
  };
  const auto greedy = model->generate("The ferry", kCPU, /*output_len=*/6, std::nullopt);
  EXPECT_EQ(generate(0.0, 0.95, 64), greedy);
  EXPECT_EQ(generate(1.0, 1.0, 1), greedy);
  EXPECT_EQ(generate(1.0, 0.0, 64), greedy);
}

// A model that follows one token by another: "ferry" ends in the piece y, y -> "m", "m" -> eos, eos
// -> "a", "a" -> "a", so that a text not cut at eos shows. Attention and MLP give nothing; a row of
// the embedding points at the row that follows it.
GemmaForCausalLM chain_model() {
  auto config = tiny_config(Architecture::kGemma1);
  config.tokenizer = testing::data_path("tiny.model").string();
  GemmaForCausalLM model(config);
  for (auto& parameter : model->parameters()) parameter.zero_();
  const auto row = [&](const char* piece) {
    return model->embedder->weight[model->tokenizer().piece_to_id(piece)];
  };
  row("y")[0] = 1;
  row("m")[0] = 10;  // Along "y" nothing is longer,
  row("m")[1] = 10;
  const auto eos = model->embedder->weight[model->tokenizer().eos_id()];
  eos[1] = 100;  // along "m" eos is,
  eos[2] = 1000;
  row("a")[2] = 10000;  // and along eos and "a", "a" is.
  return model;
}

TEST(GemmaForCausalLM, CutsTheTextBeforeTheFirstEos) {
  auto model = chain_model();
  EXPECT_EQ(model->generate("The ferry", kCPU, /*output_len=*/6, std::nullopt), "m");
}

// As the reference does: it trims afterwards.
TEST(GemmaForCausalLM, StepsOnAfterEos) {
  auto model = chain_model();
  std::vector<int64_t> steps;
  model->generate("The ferry", kCPU, /*output_len=*/6, std::nullopt, /*top_p=*/1.0, /*top_k=*/1,
                  {.on_step = [&](int64_t step) { steps.push_back(step); }});
  EXPECT_EQ(steps, (std::vector<int64_t>{0, 1, 2, 3, 4, 5}));
}

TEST(GemmaForCausalLM, StepsFromTheShortestPromptToTheEndOfTheLongest) {
  auto model = random_model(tiny_config(Architecture::kGemma1), /*with_tokenizer=*/true);
  const auto length = [&](const std::string& prompt) {
    return static_cast<int64_t>(model->tokenizer().encode(prompt).size());
  };
  int64_t steps = 0;
  model->generate(std::vector<std::string>{"The ferry leaves", "We"}, kCPU, /*output_len=*/4, 1.0,
                  0.95, 64, {.on_step = [&](int64_t) { ++steps; }});
  EXPECT_EQ(steps, length("The ferry leaves") - length("We") + 4);
}

TEST(GemmaForCausalLM, GeneratesNoTextForAnOutputLengthOfZero) {
  auto model = random_model(tiny_config(Architecture::kGemma2), /*with_tokenizer=*/true);
  EXPECT_EQ(model->generate("The ferry", kCPU, /*output_len=*/0), "");
  EXPECT_EQ(model->generate(std::vector<std::string>{"The ferry", "We"}, kCPU, /*output_len=*/0),
            (std::vector<std::string>{"", ""}));
}

TEST(GemmaForCausalLM, FillsItsPositionsToTheLast) {
  auto model = random_model(tiny_config(Architecture::kGemma3), /*with_tokenizer=*/true);
  const auto prompt_len = static_cast<int64_t>(model->tokenizer().encode("The ferry").size());
  EXPECT_NO_THROW(model->generate("The ferry", kCPU, /*output_len=*/64 - prompt_len));
  const auto message = message_of<std::invalid_argument>(
      [&] { model->generate("The ferry", kCPU, /*output_len=*/65 - prompt_len); });
  EXPECT_TRUE(contains(message, "exceed max_position_embeddings, 64"));
}

TEST(GemmaForCausalLM, EndsAGenerationWithWhatTheCallbackThrows) {
  auto model = random_model(tiny_config(Architecture::kGemma1), /*with_tokenizer=*/true);
  int64_t steps = 0;
  const auto stop_at_two = [&](int64_t step) {
    ++steps;
    if (step == 2) throw std::out_of_range("enough");
  };
  const auto generate = [&](const GenerateOptions& options) {
    return model->generate("The ferry", kCPU, /*output_len=*/9, std::nullopt, 1.0, 1, options);
  };
  EXPECT_EQ(message_of<std::out_of_range>([&] { generate({.on_step = stop_at_two}); }), "enough");
  EXPECT_EQ(steps, 3);
  EXPECT_EQ(generate({}), greedy_by_oracle(model, "The ferry", 9));  // It is none the worse.
}

struct BadCall {
  std::string name = {};
  std::vector<std::string> prompts = {"The ferry"};
  int64_t output_len = 5;
  std::optional<double> temperature = 1.0;
  double top_p = 0.95;
  int64_t top_k = 64;
  std::string expected = {};
};
std::ostream& operator<<(std::ostream& out, const BadCall& row) { return out << row.name; }

class Generate : public ::testing::TestWithParam<BadCall> {};

TEST_P(Generate, RefusesNamingTheParameter) {
  const auto& row = GetParam();
  auto model = random_model(tiny_config(Architecture::kGemma1), /*with_tokenizer=*/true);
  const auto message = message_of<std::invalid_argument>([&] {
    model->generate(row.prompts, kCPU, row.output_len, row.temperature, row.top_p, row.top_k);
  });
  EXPECT_TRUE(contains(message, row.expected));
}

constexpr auto kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr auto kInfinity = std::numeric_limits<double>::infinity();
INSTANTIATE_TEST_SUITE_P(
    GemmaForCausalLM,
    Generate,
    ::testing::Values(
        BadCall{.name = "NoPrompts", .prompts = {}, .expected = "prompts is empty"},
        BadCall{.name = "NegativeOutputLength", .output_len = -1, .expected = "output_len is -1"},
        BadCall{.name = "OutputTooLong",
                .output_len = 64,
                .expected = "exceed max_position_embeddings, 64"},
        BadCall{.name = "HugeOutputLength",
                .output_len = std::numeric_limits<int64_t>::max(),
                .expected = "output"},
        BadCall{.name = "NegativeTemperature", .temperature = -1, .expected = "temperature is -1"},
        BadCall{.name = "NanTemperature", .temperature = kNaN, .expected = "temperature is nan"},
        BadCall{.name = "InfiniteTemperature",
                .temperature = kInfinity,
                .expected = "temperature is inf"},
        BadCall{.name = "NegativeTopP", .top_p = -0.1, .expected = "top_p is -0.1"},
        BadCall{.name = "NanTopP", .top_p = kNaN, .expected = "top_p is nan"},
        BadCall{.name = "ZeroTopK", .top_k = 0, .expected = "top_k is 0"},
        BadCall{.name = "NegativeTopK", .top_k = -3, .expected = "top_k is -3"}),
    [](const auto& row) { return row.param.name; });

TEST(GemmaForCausalLM, RefusesToGenerateWhenWeightsAndConfigDisagreeAboutTheDtype) {
  auto config = tiny_config(Architecture::kGemma1);
  config.tokenizer = testing::data_path("tiny.model").string();
  config.dtype = "bfloat16";
  GemmaForCausalLM model(config);  // Of the default dtype, float32.
  randomize(*model, /*seed=*/1);
  const auto message = message_of<std::invalid_argument>(
      [&] { model->generate("The ferry", kCPU, /*output_len=*/5); });
  EXPECT_TRUE(contains(message, "the weights are float32 but config.dtype"));
  EXPECT_TRUE(contains(message, "bfloat16"));
}

TEST(GemmaForCausalLM, RefusesToGenerateOnADeviceWithoutTheWeights) {
  auto model = random_model(tiny_config(Architecture::kGemma1), /*with_tokenizer=*/true);
  const auto message = message_of<std::invalid_argument>(
      [&] { model->generate("The ferry", torch::Device(torch::kCUDA), /*output_len=*/5); });
  EXPECT_TRUE(contains(message, "device is cuda but the weights are on cpu"));
}

TEST(GemmaForCausalLM, CannotGenerateWithoutATokenizer) {
  auto model = random_model(tiny_config(Architecture::kGemma1));
  const auto message = message_of<std::logic_error>([&] { model->generate("The ferry", kCPU); });
  EXPECT_TRUE(contains(message, "no tokenizer; set config.tokenizer"));
}

}  // namespace
}  // namespace gemma
