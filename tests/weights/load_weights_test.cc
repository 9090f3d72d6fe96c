#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/saved_models.h"
#include "tests/testing.h"

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/generate/causal_lm.h>
#include <gemma/modules/linear.h>
#include <gemma/weights/weights.h>

namespace gemma {
namespace {

using testing::at_name;
using testing::copy_of;
using testing::drop;
using testing::expect_message;
using testing::expect_state;
using testing::message_of;
using testing::parameter_names;
using testing::random_gemma3;
using testing::random_tensor;
using testing::rename;
using testing::saved;
using testing::TemporaryDirectory;
using testing::tensors_equal;
using testing::Unchanged;

// Gives the path of a file that lives as long as the test.
class LoadWeights : public ::testing::Test {
 protected:
  std::string write(const std::string& bytes) const {
    return directory_.write("model.ckpt", bytes).string();
  }
  const TemporaryDirectory directory_;
};

TEST_F(LoadWeights, GivesAModelWhatAnotherHad) {
  for (const bool quant : {false, true}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      SCOPED_TRACE(c10::toString(dtype) + std::string(quant ? ", int8" : ""));
      const auto source = random_gemma3(/*seed=*/1, quant, dtype);
      auto model = random_gemma3(/*seed=*/2, quant, dtype);
      const auto report = model->load_weights(write(saved(state_dict(*source))));
      expect_state(*model, state_dict(*source));
      EXPECT_EQ(report.loaded, parameter_names(*model));
      EXPECT_TRUE(report.missing.empty());
      EXPECT_TRUE(report.unexpected.empty());
    }
  }
}

TEST_F(LoadWeights, TakesABareDict) {
  const auto source = random_gemma3(/*seed=*/1);
  auto model = random_gemma3(/*seed=*/2);
  model->load_weights(write(saved(state_dict(*source), /*bare=*/true)));
  expect_state(*model, state_dict(*source));
}

TEST_F(LoadWeights, CopiesSoThatNobodyWhoWritesToTheFileChangesTheModel) {
  const auto source = random_gemma3(/*seed=*/1);
  const auto want = copy_of(*source);
  const auto path = write(saved(state_dict(*source)));
  auto model = random_gemma3(/*seed=*/2);
  model->load_weights(path);
  const auto size = std::filesystem::file_size(path);
  std::ofstream(path, std::ios::binary) << std::string(size, 'x');  // In place.
  expect_state(*model, want);
  std::filesystem::resize_file(path, 0);
  expect_state(*model, want);
}

TEST_F(LoadWeights, GivesViewsOfTheFileInsteadOfCopiesIfAskedTo) {
  const auto checkpoint = Checkpoint::open(write(saved(state_dict(*random_gemma3(/*seed=*/1)))));
  auto first = random_gemma3(/*seed=*/2);
  auto second = random_gemma3(/*seed=*/3);
  load_weights(*first, checkpoint, {.mmap = true});
  load_weights(*second, checkpoint, {.mmap = true});
  for (const auto& item : first->named_parameters()) {
    EXPECT_EQ(item.value().data_ptr(), checkpoint.tensor(item.key()).data_ptr()) << item.key();
    EXPECT_EQ(item.value().data_ptr(), second->named_parameters()[item.key()].data_ptr());
  }
}

TEST_F(LoadWeights, KeepsTheFileMappedAsLongAsTheModelLives) {
  const auto source = random_gemma3(/*seed=*/1);
  auto model = random_gemma3(/*seed=*/2);
  const auto path = write(saved(state_dict(*source)));
  model->load_weights(path, {.mmap = true});  // The checkpoint is gone after this,
  std::filesystem::remove(path);              // and so is the file's name.
  expect_state(*model, state_dict(*source));
}

TEST_F(LoadWeights, KeepsMembersAndParametersTheSameTensor) {
  auto model = random_gemma3(/*seed=*/2);
  model->load_weights(write(saved(state_dict(*random_gemma3(/*seed=*/1)))));
  EXPECT_EQ(model->embedder->weight.data_ptr(),
            model->named_parameters()["embedder.weight"].data_ptr());
}

TEST_F(LoadWeights, WidensBfloat16WithoutLoss) {
  for (const bool quant : {false, true}) {
    SCOPED_TRACE(quant ? "int8" : "bfloat16");
    const auto source = random_gemma3(/*seed=*/1, quant, at::kBFloat16);
    auto model = random_gemma3(/*seed=*/2, quant, at::kFloat);
    model->load_weights(write(saved(state_dict(*source))));
    for (const auto& item : model->named_parameters()) {
      const auto want = source->named_parameters()[item.key()];
      EXPECT_TRUE(
          tensors_equal(item.value(), want.scalar_type() == at::kChar ? want : want.to(at::kFloat)))
          << item.key();
    }
  }
}

TEST_F(LoadWeights, RoundsFloat32ToBfloat16) {
  const auto source = random_gemma3(/*seed=*/1, /*quant=*/false, at::kFloat);
  auto model = random_gemma3(/*seed=*/2, /*quant=*/false, at::kBFloat16);
  model->load_weights(write(saved(state_dict(*source))));
  for (const auto& item : model->named_parameters()) {
    EXPECT_TRUE(
        tensors_equal(item.value(), source->named_parameters()[item.key()].to(at::kBFloat16)))
        << item.key();
  }
}

// Conversion goes by blocks of 16 MiB.
TEST_F(LoadWeights, ConvertsTensorsLargerThanABlock) {
  const auto weight = random_tensor({5003, 1023}, /*seed=*/1);
  const auto path = write(saved({{"weight", weight}}));
  const DefaultDtypeGuard guard(at::kBFloat16);
  Linear linear(/*in_features=*/1023, /*out_features=*/5003, /*quant=*/false);
  load_weights(*linear, Checkpoint::open(path));
  EXPECT_TRUE(tensors_equal(linear->weight, weight.to(at::kBFloat16)));
}

TEST_F(LoadWeights, ReadsShards) {
  const auto source = random_gemma3(/*seed=*/1);
  std::array<StateDict, 2> shards;
  std::vector<std::string> weight_map;
  for (const auto& [name, parameter] : state_dict(*source)) {
    const auto shard = weight_map.size() % 2;
    shards.at(shard).emplace_back(name, parameter);
    weight_map.push_back(fmt::format("\"{}\": \"{}.bin\"", name, shard));
  }
  directory_.write("0.bin", saved(shards[0], /*bare=*/true));
  directory_.write("1.bin", saved(shards[1], /*bare=*/true));
  directory_.write("pytorch_model.bin.index.json",
                   fmt::format("{{\"weight_map\": {{{}}}}}", fmt::join(weight_map, ", ")));

  auto model = random_gemma3(/*seed=*/2);
  const auto report = model->load_weights(directory_.path().string());
  expect_state(*model, state_dict(*source));
  EXPECT_EQ(report.loaded, parameter_names(*model));
}

TEST_F(LoadWeights, PassesRotaryTablesOver) {
  const auto source = random_gemma3(/*seed=*/1);
  auto tensors = copy_of(*source);
  at_name(tensors, "local_freqs_cis").fill_(7);
  at_name(tensors, "global_freqs_cis") = at::ones({3}, at::kFloat);  // As of another length.
  tensors.emplace_back("freqs_cis", at::ones({2, 2}, at::kFloat));
  auto model = random_gemma3(/*seed=*/2);
  const auto report = model->load_weights(write(saved(tensors)));
  expect_state(*model, state_dict(*source));
  EXPECT_TRUE(report.unexpected.empty());
}

TEST_F(LoadWeights, NeedsNoRotaryTables) {
  const auto source = random_gemma3(/*seed=*/1);
  auto tensors = state_dict(*source);
  std::erase_if(tensors, [](const auto& item) { return is_rope_table(item.first); });
  auto model = random_gemma3(/*seed=*/2);
  model->load_weights(write(saved(tensors)));
  expect_state(*model, state_dict(*source));
}

TEST_F(LoadWeights, ReportsNamesThatTheModelDoesNotHave) {
  const auto source = random_gemma3(/*seed=*/1);
  auto tensors = state_dict(*source);
  tensors.emplace_back("lm_head.weight", at::ones({2}));
  tensors.emplace_back("v.blk.0.attn_q.bias", at::ones({33}));
  auto model = random_gemma3(/*seed=*/2);
  const auto report = model->load_weights(write(saved(tensors)));
  EXPECT_EQ(report.unexpected, (std::vector<std::string>{"lm_head.weight", "v.blk.0.attn_q.bias"}));
  EXPECT_EQ(describe_unexpected(report),
            "left out 2 tensors that the model has no place for: 'lm_head.weight', "
            "'v.blk.0.attn_q.bias'");
  EXPECT_EQ(describe_unexpected({}), "");
  expect_state(*model, state_dict(*source));
}

TEST_F(LoadWeights, TellsOfItsProgress) {
  const auto source = random_gemma3(/*seed=*/1, /*quant=*/true, at::kBFloat16);
  auto model = random_gemma3(/*seed=*/2, /*quant=*/true, at::kFloat);
  std::vector<std::string> names;
  int64_t bytes = 0;
  LoadProgress last{};
  const auto progress = [&](const LoadProgress& state) {
    names.emplace_back(state.tensor);
    bytes += static_cast<int64_t>(source->named_parameters()[names.back()].nbytes());
    EXPECT_EQ(state.tensors_done, static_cast<int64_t>(names.size()));
    EXPECT_EQ(state.bytes_done, bytes);
    last = state;
  };
  model->load_weights(write(saved(state_dict(*source))), {.progress = progress});
  EXPECT_EQ(names, parameter_names(*model));
  EXPECT_EQ(last.tensors_done, last.tensors_total);
  EXPECT_EQ(last.bytes_done, last.bytes_total);
}

TEST_F(LoadWeights, LeavesTheModelAsItWasWhenTheCallbackThrows) {
  const auto path = write(saved(state_dict(*random_gemma3(/*seed=*/1))));
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    auto model = random_gemma3(/*seed=*/2, /*quant=*/false, dtype);
    const Unchanged unchanged(*model);
    for (const bool at_the_end : {false, true}) {
      const auto cancel = [&](const LoadProgress& progress) {
        if (!at_the_end || progress.tensors_done == progress.tensors_total) {
          throw std::out_of_range("cancelled");
        }
      };
      EXPECT_THROW(model->load_weights(path, {.progress = cancel}), std::out_of_range);
    }
  }
}

TEST_F(LoadWeights, RoundsFloat64) {
  const auto source = random_gemma3(/*seed=*/1);
  auto tensors = copy_of(*source);
  for (auto& [name, tensor] : tensors) {
    if (!is_rope_table(name)) tensor = tensor.to(at::kDouble) + 1e-12;
  }
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    auto model = random_gemma3(/*seed=*/2, /*quant=*/false, dtype);
    model->load_weights(write(saved(tensors)));
    for (const auto& item : model->named_parameters()) {
      EXPECT_TRUE(tensors_equal(item.value(), at_name(tensors, item.key()).to(dtype)))
          << item.key();
    }
  }
}

TEST_F(LoadWeights, RefusesAnAdapterBesideTheModel) {
  const auto source = random_gemma3(/*seed=*/1);
  directory_.write("pytorch_model.bin", saved(state_dict(*source), /*bare=*/true));
  auto model = random_gemma3(/*seed=*/2);
  EXPECT_NO_THROW(model->load_weights(directory_.path().string()));
  directory_.write("adapter_config.json", "{}");
  const Unchanged unchanged(*model);
  expect_message(
      message_of<std::runtime_error>([&] { model->load_weights(directory_.path().string()); }),
      directory_.path().string() + ": ", "has an adapter (adapter_config.json, ");
}

struct BadWeights {
  std::string name;
  bool quant;  // The model.
  std::function<void(StateDict&)> spoil;
  std::vector<std::string> expected;
};
std::ostream& operator<<(std::ostream& out, const BadWeights& row) { return out << row.name; }

// A tensor more.
std::function<void(StateDict&)> with(const char* name) {
  return [name](StateDict& state) { state.emplace_back(name, at::ones({33})); };
}

class BadCheckpoint : public LoadWeights, public ::testing::WithParamInterface<BadWeights> {};

TEST_P(BadCheckpoint, IsRefusedNamingFileTensorAndCureAndTheModelIsAsItWas) {
  const auto& row = GetParam();
  auto tensors = copy_of(*random_gemma3(/*seed=*/1, row.quant));
  row.spoil(tensors);
  const auto path = write(saved(tensors));
  auto model = random_gemma3(/*seed=*/2, row.quant);
  const Unchanged unchanged(*model);
  const auto message = message_of<std::runtime_error>([&] { model->load_weights(path); });
  for (const auto& expected : row.expected) expect_message(message, path + ": ", expected);
}

INSTANTIATE_TEST_SUITE_P(
    LoadWeights,
    BadCheckpoint,
    ::testing::Values(
        BadWeights{"OneMissing",
                   false,
                   [](StateDict& state) { drop(state, "model.norm.weight"); },
                   {"no tensor 'model.norm.weight'; ", "Variants: 2b, 7b, 2b-v2"}},
        BadWeights{"ManyMissing",
                   false,
                   [](StateDict& state) { drop(state, "gate_proj"); },
                   {"no tensor 'model.layers.0.mlp.gate_proj.weight', "
                    "'model.layers.1.mlp.gate_proj.weight', "
                    "'model.layers.2.mlp.gate_proj.weight' and 4 more; "}},
        BadWeights{"Empty",
                   false,
                   [](StateDict& state) { state.resize(1); },
                   {"no tensor 'embedder.weight'"}},
        BadWeights{"OtherLength",
                   false,
                   [](StateDict& state) { at_name(state, "model.norm.weight") = at::ones({34}); },
                   {"tensor 'model.norm.weight' is [34], but the model's is [33]"}},
        BadWeights{"Transposed",
                   false,
                   [](StateDict& state) {
                     auto& weight = at_name(state, "model.layers.3.mlp.up_proj.weight");
                     weight = weight.t().contiguous();
                   },
                   {"tensor 'model.layers.3.mlp.up_proj.weight' is [33, 53], but the model's is "
                    "[53, 33]"}},
        BadWeights{
            "QuantizedForFloats",
            false,
            [](StateDict& state) { state = copy_of(*random_gemma3(/*seed=*/1, /*quant=*/true)); },
            {"tensor 'embedder.weight' is int8, but the model's is float32; set quant in the "
             "config (--quant)"}},
        BadWeights{
            "FloatsForQuantized",
            true,
            [](StateDict& state) {
              auto& weight = at_name(state, "model.layers.2.self_attn.o_proj.weight");
              weight = weight.to(at::kFloat);
            },
            {"tensor 'model.layers.2.self_attn.o_proj.weight' is float32, but the model's is "
             "int8; leave quant unset"}},
        BadWeights{"Integers",
                   false,
                   [](StateDict& state) {
                     at_name(state, "model.norm.weight") = at::ones({33}, at::kLong);
                   },
                   {"tensor 'model.norm.weight' is int64",
                    "weights are float32, bfloat16, float16 or float64"}},
        BadWeights{"Bias",
                   false,
                   with("model.layers.0.self_attn.o_proj.bias"),
                   {"its tensors 'model.layers.0.self_attn.o_proj.bias' are biases, which Gemma "
                    "does not have"}},
        BadWeights{"BiasOfTheHead", false, with("lm_head.bias"), {"'lm_head.bias' are biases"}},
        BadWeights{"LoraFactors",
                   false,
                   with("model.layers.1.mlp.up_proj.lora_A.default.weight"),
                   {"its tensors 'model.layers.1.mlp.up_proj.lora_A.default.weight' are of an "
                    "adapter, such as LoRA, that would not be applied: merge it"}},
        BadWeights{"LoraFactorsUnderOtherNames",
                   false,
                   with("base_model.x.lora_B.weight"),
                   {"are of an adapter"}},
        BadWeights{"LoraMagnitudes",
                   false,
                   with("model.layers.1.mlp.up_proj.lora_magnitude_vector.default.weight"),
                   {"are of an adapter"}},
        BadWeights{"WeightsBelowAnAdapter",
                   false,
                   [](StateDict& state) {
                     rename(state, "model.layers.1.mlp.up_proj.weight",
                            "model.layers.1.mlp.up_proj.base_layer.weight");
                   },
                   {"'model.layers.1.mlp.up_proj.base_layer.weight' are of an adapter"}},
        BadWeights{"QuantizedByAnother",
                   false,
                   [](StateDict& state) {
                     rename(state, "model.layers.1.mlp.up_proj.weight",
                            "model.layers.1.mlp.up_proj.qweight");
                   },
                   {"'model.layers.1.mlp.up_proj.qweight' are of weights that another program "
                    "quantised"}},
        BadWeights{"ScalesOfAnother",
                   false,
                   with("model.layers.1.mlp.up_proj.weight_scale_inv"),
                   {"are of weights that another program quantised"}},
        BadWeights{"MoreLayers",
                   false,
                   with("model.layers.9.input_layernorm.weight"),
                   {"has 10 layers, but the model's config says 7: give the config of this file"}},
        BadWeights{"SomethingElseInALayer",
                   false,
                   with("model.layers.1.router.weight"),
                   {"'model.layers.1.router.weight' are of modules that Gemma has, but no weights "
                    "of Gemma"}},
        BadWeights{"SomethingElseInTheModel",
                   false,
                   with("model.embed_tokens_per_layer.weight"),
                   {"are of modules that Gemma has"}},
        BadWeights{"AnotherModel",
                   false,
                   [](StateDict& state) {
                     state.clear();
                     for (const char* name :
                          {"conv1.weight", "conv1.bias", "bn1.weight", "fc.bias"}) {
                       state.emplace_back(name, at::ones({2}));
                     }
                   },
                   {"it does not hold the weights of a Gemma: its tensors are 'conv1.weight', "
                    "'conv1.bias', 'bn1.weight' and 1 more"}},
        BadWeights{"ScalesMissing",
                   true,
                   [](StateDict& state) { drop(state, "embedder.weight_scaler"); },
                   {"no tensor 'embedder.weight_scaler'"}},
        BadWeights{"Multimodal",
                   false,
                   [](StateDict& state) {
                     rename(state, "embedder.weight", "text_token_embedder.weight");
                   },
                   {"no tensor 'embedder.weight'; this is a multimodal checkpoint"}},
        BadWeights{"HuggingFaceWithoutKeys",
                   false,
                   [](StateDict& state) {
                     rename(state, "embedder.weight", "model.embed_tokens.weight");
                     rename(state, "model.layers.0.self_attn.qkv_proj.weight",
                            "model.layers.0.self_attn.q_proj.weight");
                   },
                   {"has no tensor 'model.layers.0.self_attn.k_proj.weight', which belongs to "
                    "'model.layers.0.self_attn.qkv_proj.weight'"}}),
    [](const auto& row) { return row.param.name; });

TEST_F(LoadWeights, ThrowsFileNotFoundWhenThereIsNoFile) {
  auto model = random_gemma3(/*seed=*/2);
  const Unchanged unchanged(*model);
  EXPECT_THROW(model->load_weights((directory_.path() / "model.ckpt").string()), FileNotFound);
}

}  // namespace
}  // namespace gemma
