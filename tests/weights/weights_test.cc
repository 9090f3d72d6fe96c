#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/saved_models.h"
#include "tests/testing.h"

#include <gemma/generate/causal_lm.h>
#include <gemma/weights/weights.h>

namespace gemma {
namespace {

using testing::at_name;
using testing::contains;
using testing::copy_of;
using testing::drop;
using testing::expect_state;
using testing::message_of;
using testing::parameter_names;
using testing::random_gemma3;
using testing::rename;
using testing::tensors_equal;
using testing::tiny_config;
using testing::Unchanged;

TEST(StateDict, IsInTheReferencesOrder) {
  auto config = tiny_config(Architecture::kGemma2);
  config.num_hidden_layers = 1;
  const GemmaForCausalLM model(config);
  std::vector<std::string> names;
  for (const auto& item : state_dict(*model)) names.push_back(item.first);
  EXPECT_EQ(
      names,
      (std::vector<std::string>{
          "freqs_cis", "embedder.weight", "model.layers.0.self_attn.qkv_proj.weight",
          "model.layers.0.self_attn.o_proj.weight", "model.layers.0.mlp.gate_proj.weight",
          "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight",
          "model.layers.0.input_layernorm.weight", "model.layers.0.post_attention_layernorm.weight",
          "model.layers.0.pre_feedforward_layernorm.weight",
          "model.layers.0.post_feedforward_layernorm.weight", "model.norm.weight"}));
}

TEST(StateDict, HasTheModulesOwnTensors) {
  auto model = random_gemma3(1);
  auto tensors = state_dict(*model);
  EXPECT_EQ(at_name(tensors, "model.norm.weight").data_ptr(),
            model->model->norm->weight.data_ptr());
}

TEST(IsRopeTable, KnowsTheThreeTables) {
  EXPECT_TRUE(is_rope_table("freqs_cis"));
  EXPECT_TRUE(is_rope_table("local_freqs_cis"));
  EXPECT_TRUE(is_rope_table("global_freqs_cis"));
  EXPECT_FALSE(is_rope_table("model.norm.weight"));
}

TEST(LoadStateDict, CopiesIntoTheParameters) {
  const auto source = random_gemma3(/*seed=*/1);
  auto model = random_gemma3(/*seed=*/2);
  const void* const data = model->embedder->weight.data_ptr();
  const auto report = load_state_dict(*model, state_dict(*source));
  EXPECT_EQ(model->embedder->weight.data_ptr(), data);
  expect_state(*model, state_dict(*source));
  EXPECT_EQ(report.loaded, parameter_names(*model));
}

TEST(LoadStateDict, CastsWhatItCopies) {
  const auto source = random_gemma3(/*seed=*/1, /*quant=*/false, at::kFloat);
  auto model = random_gemma3(/*seed=*/2, /*quant=*/false, at::kBFloat16);
  load_state_dict(*model, state_dict(*source));
  EXPECT_TRUE(tensors_equal(model->embedder->weight, source->embedder->weight.to(at::kBFloat16)));
}

TEST(LoadStateDict, TakesTheTensorsThemselvesWithAssign) {
  const auto source = random_gemma3(/*seed=*/1);
  auto model = random_gemma3(/*seed=*/2);
  load_state_dict(*model, state_dict(*source), /*strict=*/true, /*assign=*/true);
  expect_state(*model, state_dict(*source));
  for (const auto& item : model->named_parameters()) {
    EXPECT_EQ(item.value().data_ptr(), source->named_parameters()[item.key()].data_ptr());
  }
}

TEST(LoadStateDict, RefusesMissingAndUnexpectedNamesWhenStrict) {
  auto tensors = copy_of(*random_gemma3(/*seed=*/1));
  rename(tensors, "model.norm.weight", "model.norm.gain");
  auto model = random_gemma3(/*seed=*/2);
  const Unchanged unchanged(*model);
  for (const bool assign : {false, true}) {
    const auto message = message_of<std::runtime_error>(
        [&] { load_state_dict(*model, tensors, /*strict=*/true, assign); });
    EXPECT_TRUE(contains(message, "missing 'model.norm.weight', unexpected 'model.norm.gain'"));
    EXPECT_TRUE(contains(message, "strict=False"));
  }
}

TEST(LoadStateDict, LoadsTheRestAndReportsWhenNotStrict) {
  auto tensors = copy_of(*random_gemma3(/*seed=*/1));
  rename(tensors, "model.norm.weight", "model.norm.gain");
  auto model = random_gemma3(/*seed=*/2);
  const auto norm = model->model->norm->weight.clone();
  const auto report = load_state_dict(*model, tensors, /*strict=*/false);
  EXPECT_EQ(report.missing, std::vector<std::string>{"model.norm.weight"});
  EXPECT_EQ(report.unexpected, std::vector<std::string>{"model.norm.gain"});
  EXPECT_EQ(report.loaded.size(), parameter_names(*model).size() - 1);
  EXPECT_TRUE(tensors_equal(model->model->norm->weight, norm));
  EXPECT_TRUE(tensors_equal(model->embedder->weight, at_name(tensors, "embedder.weight")));
}

TEST(LoadStateDict, RefusesAnotherShapeStrictOrNot) {
  auto tensors = copy_of(*random_gemma3(/*seed=*/1));
  at_name(tensors, "model.norm.weight") = at::ones({1});  // It could be broadcast.
  auto model = random_gemma3(/*seed=*/2);
  const Unchanged unchanged(*model);
  for (const bool strict : {false, true}) {
    const auto message =
        message_of<std::runtime_error>([&] { load_state_dict(*model, tensors, strict); });
    EXPECT_TRUE(contains(message, "'model.norm.weight' is [1], but the model's is [33]"));
  }
}

TEST(LoadStateDict, PassesRotaryTablesOver) {
  const auto source = random_gemma3(/*seed=*/1);
  auto tensors = copy_of(*source);
  at_name(tensors, "local_freqs_cis") = at::ones({3});
  drop(tensors, "global_freqs_cis");
  auto model = random_gemma3(/*seed=*/2);
  EXPECT_TRUE(load_state_dict(*model, tensors).unexpected.empty());
  expect_state(*model, state_dict(*source));
}

}  // namespace
}  // namespace gemma
