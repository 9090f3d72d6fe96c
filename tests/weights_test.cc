#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "bad_files.h"
#include "testing.h"

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/models/causal_lm.h>
#include <gemma/models/weights.h>
#include <gemma/modules/linear.h>

namespace gemma {
namespace {

namespace op = testing::op;
using testing::contains;
using testing::expect_message;
using testing::message_of;
using testing::parameter_names;
using testing::random_tensor;
using testing::randomize;
using testing::TemporaryDirectory;
using testing::tensors_equal;
using testing::tiny_config;

std::string storage_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "FloatStorage";
    case at::kHalf:
      return "HalfStorage";
    case at::kBFloat16:
      return "BFloat16Storage";
    case at::kChar:
      return "CharStorage";
    case at::kLong:
      return "LongStorage";
    case at::kComplexFloat:
      return "ComplexFloatStorage";
    default:
      throw std::invalid_argument(c10::toString(dtype));
  }
}

// What torch.save writes for a dict of these, under 'model_state_dict' or bare as in a shard.
std::string saved(const StateDict& tensors, bool bare = false) {
  std::vector<std::string> items;
  std::vector<std::string> data;
  for (const auto& [name, tensor] : tensors) {
    const auto dense = tensor.contiguous();
    items.push_back(op::text(name));
    items.push_back(op::tensor({.sizes = dense.sizes().vec(),
                                .strides = dense.strides().vec(),
                                .key = std::to_string(data.size()),
                                .numel = dense.numel(),
                                .storage = storage_of(dense.scalar_type())}));
    data.emplace_back(static_cast<const char*>(dense.const_data_ptr()), dense.nbytes());
  }
  auto dict = op::ordered_dict(items);
  if (!bare) dict = op::dict({op::text("model_state_dict"), dict});
  return testing::torch_file(testing::pickle_of(dict), data);
}

GemmaForCausalLM random_model(uint64_t seed,
                              bool quant = false,
                              at::ScalarType dtype = at::kFloat) {
  const DefaultDtypeGuard guard(dtype);
  auto config = tiny_config(Architecture::kGemma3);
  config.quant = quant;
  GemmaForCausalLM model(config);
  randomize(*model, seed);
  return model;
}

// The state of a model, with tensors of its own.
StateDict copy_of(const torch::nn::Module& module) {
  auto copy = state_dict(module);
  for (auto& item : copy) item.second = item.second.clone();
  return copy;
}

at::Tensor& at_name(StateDict& tensors, std::string_view name) {
  for (auto& [key, tensor] : tensors) {
    if (key == name) return tensor;
  }
  throw std::out_of_range(std::string(name));
}

void rename(StateDict& tensors, std::string_view from, std::string to) {
  for (auto& item : tensors) {
    if (item.first == from) item.first = std::move(to);
  }
}

void expect_state(const torch::nn::Module& module, const StateDict& want) {
  const auto got = state_dict(module);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].first, want[i].first);
    EXPECT_TRUE(tensors_equal(got[i].second, want[i].second)) << got[i].first;
  }
}

// A module whose tensors have to stay what and where they are.
class Unchanged {
 public:
  explicit Unchanged(const torch::nn::Module& module) : module_(module), want_(copy_of(module)) {
    for (const auto& item : state_dict(module)) data_.push_back(item.second.data_ptr());
  }
  ~Unchanged() {
    expect_state(module_, want_);
    size_t i = 0;
    for (const auto& item : state_dict(module_)) EXPECT_EQ(item.second.data_ptr(), data_[i++]);
  }
  Unchanged(const Unchanged&) = delete;
  Unchanged& operator=(const Unchanged&) = delete;

 private:
  const torch::nn::Module& module_;
  StateDict want_;
  std::vector<void*> data_;
};

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
  auto model = random_model(1);
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
      const auto source = random_model(/*seed=*/1, quant, dtype);
      auto model = random_model(/*seed=*/2, quant, dtype);
      const auto report = model->load_weights(write(saved(state_dict(*source))));
      expect_state(*model, state_dict(*source));
      EXPECT_EQ(report.loaded, parameter_names(*model));
      EXPECT_TRUE(report.missing.empty());
      EXPECT_TRUE(report.unexpected.empty());
    }
  }
}

TEST_F(LoadWeights, TakesABareDict) {
  const auto source = random_model(/*seed=*/1);
  auto model = random_model(/*seed=*/2);
  model->load_weights(write(saved(state_dict(*source), /*bare=*/true)));
  expect_state(*model, state_dict(*source));
}

TEST_F(LoadWeights, GivesViewsOfTheFileInsteadOfCopies) {
  const auto checkpoint = Checkpoint::open(write(saved(state_dict(*random_model(/*seed=*/1)))));
  auto first = random_model(/*seed=*/2);
  auto second = random_model(/*seed=*/3);
  load_weights(*first, checkpoint);
  load_weights(*second, checkpoint);
  for (const auto& item : first->named_parameters()) {
    EXPECT_EQ(item.value().data_ptr(), checkpoint.tensor(item.key()).data_ptr()) << item.key();
    EXPECT_EQ(item.value().data_ptr(), second->named_parameters()[item.key()].data_ptr());
  }
}

TEST_F(LoadWeights, KeepsTheFileMappedAsLongAsTheModelLives) {
  const auto source = random_model(/*seed=*/1);
  auto model = random_model(/*seed=*/2);
  const auto path = write(saved(state_dict(*source)));
  model->load_weights(path);      // The checkpoint is gone after this,
  std::filesystem::remove(path);  // and so is the file's name.
  expect_state(*model, state_dict(*source));
}

TEST_F(LoadWeights, KeepsMembersAndParametersTheSameTensor) {
  auto model = random_model(/*seed=*/2);
  model->load_weights(write(saved(state_dict(*random_model(/*seed=*/1)))));
  EXPECT_EQ(model->embedder->weight.data_ptr(),
            model->named_parameters()["embedder.weight"].data_ptr());
}

TEST_F(LoadWeights, WidensBfloat16WithoutLoss) {
  for (const bool quant : {false, true}) {
    SCOPED_TRACE(quant ? "int8" : "bfloat16");
    const auto source = random_model(/*seed=*/1, quant, at::kBFloat16);
    auto model = random_model(/*seed=*/2, quant, at::kFloat);
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
  const auto source = random_model(/*seed=*/1, /*quant=*/false, at::kFloat);
  auto model = random_model(/*seed=*/2, /*quant=*/false, at::kBFloat16);
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
  const auto source = random_model(/*seed=*/1);
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

  auto model = random_model(/*seed=*/2);
  const auto report = model->load_weights(directory_.path().string());
  expect_state(*model, state_dict(*source));
  EXPECT_EQ(report.loaded, parameter_names(*model));
}

TEST_F(LoadWeights, PassesRotaryTablesOver) {
  const auto source = random_model(/*seed=*/1);
  auto tensors = copy_of(*source);
  at_name(tensors, "local_freqs_cis").fill_(7);
  at_name(tensors, "global_freqs_cis") = at::ones({3}, at::kFloat);  // As of another length.
  tensors.emplace_back("freqs_cis", at::ones({2, 2}, at::kFloat));
  auto model = random_model(/*seed=*/2);
  const auto report = model->load_weights(write(saved(tensors)));
  expect_state(*model, state_dict(*source));
  EXPECT_TRUE(report.unexpected.empty());
}

TEST_F(LoadWeights, NeedsNoRotaryTables) {
  const auto source = random_model(/*seed=*/1);
  auto tensors = state_dict(*source);
  std::erase_if(tensors, [](const auto& item) { return is_rope_table(item.first); });
  auto model = random_model(/*seed=*/2);
  model->load_weights(write(saved(tensors)));
  expect_state(*model, state_dict(*source));
}

TEST_F(LoadWeights, ReportsNamesThatTheModelDoesNotHave) {
  const auto source = random_model(/*seed=*/1);
  auto tensors = state_dict(*source);
  tensors.emplace_back("lm_head.weight", at::ones({2}));
  tensors.emplace_back("model.layers.7.input_layernorm.weight", at::ones({33}));
  auto model = random_model(/*seed=*/2);
  const auto report = model->load_weights(write(saved(tensors)));
  EXPECT_EQ(report.unexpected,
            (std::vector<std::string>{"lm_head.weight", "model.layers.7.input_layernorm.weight"}));
  expect_state(*model, state_dict(*source));
}

TEST_F(LoadWeights, TellsOfItsProgress) {
  const auto source = random_model(/*seed=*/1, /*quant=*/true, at::kBFloat16);
  auto model = random_model(/*seed=*/2, /*quant=*/true, at::kFloat);
  std::vector<std::string> names;
  int64_t bytes = 0;
  LoadProgress last{};
  model->load_weights(write(saved(state_dict(*source))), [&](const LoadProgress& progress) {
    names.emplace_back(progress.tensor);
    bytes += static_cast<int64_t>(source->named_parameters()[names.back()].nbytes());
    EXPECT_EQ(progress.tensors_done, static_cast<int64_t>(names.size()));
    EXPECT_EQ(progress.bytes_done, bytes);
    last = progress;
  });
  EXPECT_EQ(names, parameter_names(*model));
  EXPECT_EQ(last.tensors_done, last.tensors_total);
  EXPECT_EQ(last.bytes_done, last.bytes_total);
}

TEST_F(LoadWeights, LeavesTheModelAsItWasWhenTheCallbackThrows) {
  const auto path = write(saved(state_dict(*random_model(/*seed=*/1))));
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    auto model = random_model(/*seed=*/2, /*quant=*/false, dtype);
    const Unchanged unchanged(*model);
    for (const bool at_the_end : {false, true}) {
      EXPECT_THROW(model->load_weights(path,
                                       [&](const LoadProgress& progress) {
                                         if (!at_the_end ||
                                             progress.tensors_done == progress.tensors_total) {
                                           throw std::out_of_range("cancelled");
                                         }
                                       }),
                   std::out_of_range);
    }
  }
}

struct BadWeights {
  std::string name;
  bool quant;  // The model.
  std::function<void(StateDict&)> spoil;
  std::vector<std::string> expected;
};
std::ostream& operator<<(std::ostream& out, const BadWeights& row) { return out << row.name; }

class BadCheckpoint : public LoadWeights, public ::testing::WithParamInterface<BadWeights> {};

TEST_P(BadCheckpoint, IsRefusedNamingFileTensorAndCureAndTheModelIsAsItWas) {
  const auto& row = GetParam();
  auto tensors = copy_of(*random_model(/*seed=*/1, row.quant));
  row.spoil(tensors);
  const auto path = write(saved(tensors));
  auto model = random_model(/*seed=*/2, row.quant);
  const Unchanged unchanged(*model);
  const auto message = message_of<std::runtime_error>([&] { model->load_weights(path); });
  for (const auto& expected : row.expected) expect_message(message, path + ": ", expected);
}

void drop(StateDict& tensors, std::string_view part) {
  std::erase_if(tensors,
                [part](const auto& item) { return item.first.find(part) != std::string::npos; });
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
            [](StateDict& state) { state = copy_of(*random_model(/*seed=*/1, /*quant=*/true)); },
            {"tensor 'embedder.weight' is Char, but the model's is Float; set quant in the "
             "config (--quant)"}},
        BadWeights{"FloatsForQuantized",
                   true,
                   [](StateDict& state) {
                     auto& weight = at_name(state, "model.layers.2.self_attn.o_proj.weight");
                     weight = weight.to(at::kFloat);
                   },
                   {"tensor 'model.layers.2.self_attn.o_proj.weight' is Float, but the model's is "
                    "Char; leave quant unset"}},
        BadWeights{
            "Integers",
            false,
            [](StateDict& state) {
              at_name(state, "model.norm.weight") = at::ones({33}, at::kLong);
            },
            {"tensor 'model.norm.weight' is Long", "weights are float16, bfloat16 or float32"}},
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
        BadWeights{
            "HuggingFace",
            false,
            [](StateDict& state) { rename(state, "embedder.weight", "model.embed_tokens.weight"); },
            {"no tensor 'embedder.weight'; this is a checkpoint for Hugging Face "
             "transformers"}}),
    [](const auto& row) { return row.param.name; });

TEST_F(LoadWeights, ThrowsFileNotFoundWhenThereIsNoFile) {
  auto model = random_model(/*seed=*/2);
  const Unchanged unchanged(*model);
  EXPECT_THROW(model->load_weights((directory_.path() / "model.ckpt").string()), FileNotFound);
}

TEST(LoadStateDict, CopiesIntoTheParameters) {
  const auto source = random_model(/*seed=*/1);
  auto model = random_model(/*seed=*/2);
  const void* const data = model->embedder->weight.data_ptr();
  const auto report = load_state_dict(*model, state_dict(*source));
  EXPECT_EQ(model->embedder->weight.data_ptr(), data);
  expect_state(*model, state_dict(*source));
  EXPECT_EQ(report.loaded, parameter_names(*model));
}

TEST(LoadStateDict, CastsWhatItCopies) {
  const auto source = random_model(/*seed=*/1, /*quant=*/false, at::kFloat);
  auto model = random_model(/*seed=*/2, /*quant=*/false, at::kBFloat16);
  load_state_dict(*model, state_dict(*source));
  EXPECT_TRUE(tensors_equal(model->embedder->weight, source->embedder->weight.to(at::kBFloat16)));
}

TEST(LoadStateDict, TakesTheTensorsThemselvesWithAssign) {
  const auto source = random_model(/*seed=*/1);
  auto model = random_model(/*seed=*/2);
  load_state_dict(*model, state_dict(*source), /*strict=*/true, /*assign=*/true);
  expect_state(*model, state_dict(*source));
  for (const auto& item : model->named_parameters()) {
    EXPECT_EQ(item.value().data_ptr(), source->named_parameters()[item.key()].data_ptr());
  }
}

TEST(LoadStateDict, RefusesMissingAndUnexpectedNamesWhenStrict) {
  auto tensors = copy_of(*random_model(/*seed=*/1));
  rename(tensors, "model.norm.weight", "model.norm.gain");
  auto model = random_model(/*seed=*/2);
  const Unchanged unchanged(*model);
  for (const bool assign : {false, true}) {
    const auto message = message_of<std::runtime_error>(
        [&] { load_state_dict(*model, tensors, /*strict=*/true, assign); });
    EXPECT_TRUE(contains(message, "missing 'model.norm.weight', unexpected 'model.norm.gain'"));
    EXPECT_TRUE(contains(message, "strict=False"));
  }
}

TEST(LoadStateDict, LoadsTheRestAndReportsWhenNotStrict) {
  auto tensors = copy_of(*random_model(/*seed=*/1));
  rename(tensors, "model.norm.weight", "model.norm.gain");
  auto model = random_model(/*seed=*/2);
  const auto norm = model->model->norm->weight.clone();
  const auto report = load_state_dict(*model, tensors, /*strict=*/false);
  EXPECT_EQ(report.missing, std::vector<std::string>{"model.norm.weight"});
  EXPECT_EQ(report.unexpected, std::vector<std::string>{"model.norm.gain"});
  EXPECT_EQ(report.loaded.size(), parameter_names(*model).size() - 1);
  EXPECT_TRUE(tensors_equal(model->model->norm->weight, norm));
  EXPECT_TRUE(tensors_equal(model->embedder->weight, at_name(tensors, "embedder.weight")));
}

TEST(LoadStateDict, RefusesAnotherShapeStrictOrNot) {
  auto tensors = copy_of(*random_model(/*seed=*/1));
  at_name(tensors, "model.norm.weight") = at::ones({1});  // It could be broadcast.
  auto model = random_model(/*seed=*/2);
  const Unchanged unchanged(*model);
  for (const bool strict : {false, true}) {
    const auto message =
        message_of<std::runtime_error>([&] { load_state_dict(*model, tensors, strict); });
    EXPECT_TRUE(contains(message, "'model.norm.weight' is [1], but the model's is [33]"));
  }
}

TEST(LoadStateDict, PassesRotaryTablesOver) {
  const auto source = random_model(/*seed=*/1);
  auto tensors = copy_of(*source);
  at_name(tensors, "local_freqs_cis") = at::ones({3});
  drop(tensors, "global_freqs_cis");
  auto model = random_model(/*seed=*/2);
  EXPECT_TRUE(load_state_dict(*model, tensors).unexpected.empty());
  expect_state(*model, state_dict(*source));
}

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
                      VariantShapes{"27b_v3", kMultimodal, 262'144, 5376, 8192, 21'504, 62}),
    [](const auto& row) {
      auto name = row.param.name;
      for (auto& c : name) {
        if (c == '-') c = '_';
      }
      return name;
    });

TEST_F(LoadWeights, NamesTheVariantThatTheFileHas) {
  const VariantShapes file{"2b", kText, 256'000, 2048, 2560, 16'384, 18};
  const auto path = write(sparse_file(file, /*quant=*/false));
  auto model = random_model(/*seed=*/2);
  const auto message = message_of<std::runtime_error>([&] { model->load_weights(path); });
  expect_message(message, path,
                 "tensor 'embedder.weight' is [256000, 2048], but the model's is [451, 33]; the "
                 "file is of variant '2b'");
}

TEST(DetectVariantOfATinyModel, FindsNone) {
  const TemporaryDirectory directory;
  const auto path = directory.write("model.ckpt", saved(state_dict(*random_model(/*seed=*/1))));
  EXPECT_FALSE(detect_variant(Checkpoint::open(path)));
}

}  // namespace
}  // namespace gemma
