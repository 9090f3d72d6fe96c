#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/saved_models.h"
#include "tests/testing.h"

#include <gemma/weights/hf/hf_layout.h>
#include <gemma/weights/weights.h>

namespace gemma {
namespace {

using testing::expect_message;
using testing::expect_state;
using testing::message_of;
using testing::random_gemma3;
using testing::saved;

// What transformers would hold of the same model.
StateDict hugging_face_names(const StateDict& weights, const GemmaConfig& config) {
  StateDict theirs;
  for (const auto& [name, tensor] : weights) {
    for (const auto& part : hf_parts(name, tensor.size(0), config)) {
      theirs.emplace_back(part.name, tensor.narrow(0, part.first, part.rows));
    }
  }
  return theirs;
}

StateDict with_prefix(StateDict state, const std::string& prefix) {
  for (auto& item : state) item.first.insert(0, prefix);
  return state;
}

// A file whose names stand behind a prefix, of gemma_pytorch's and of Hugging Face's names.
class Prefix : public ::testing::TestWithParam<const char*> {
 protected:
  void expect_loaded(const StateDict& state) const {
    auto model = random_gemma3(/*seed=*/2);
    const auto report = model->load_weights(folder_.write("model.ckpt", saved(state)).string());
    expect_state(*model, state_dict(*source_));
    EXPECT_TRUE(report.unexpected.empty());
  }

  const testing::TemporaryDirectory folder_;
  const GemmaForCausalLM source_ = random_gemma3(/*seed=*/1);
  const StateDict ours_ = weights_of(*source_);
  const StateDict theirs_ = hugging_face_names(ours_, testing::tiny_config(Architecture::kGemma3));
};

TEST_P(Prefix, IsTakenOff) {
  expect_loaded(with_prefix(ours_, GetParam()));
  expect_loaded(with_prefix(theirs_, GetParam()));
}

TEST_P(Prefix, MayBeMissingWhereAnotherModulesTensorsAre) {
  auto state = with_prefix(ours_, GetParam());
  state.emplace_back("n_averaged", at::ones({1}));  // As torch.optim.swa_utils has it.
  auto model = random_gemma3(/*seed=*/2);
  const auto report = model->load_weights(folder_.write("model.ckpt", saved(state)).string());
  expect_state(*model, state_dict(*source_));
  EXPECT_EQ(report.unexpected, std::vector<std::string>{"n_averaged"});
}

TEST_P(Prefix, StandsInMessagesAsInTheFile) {
  const std::string prefix = GetParam();
  auto state = with_prefix(ours_, prefix);
  const auto name = prefix + "model.layers.0.self_attn.o_proj.bias";
  state.emplace_back(name, at::ones({1}));
  auto model = random_gemma3(/*seed=*/2);
  const auto path = folder_.write("model.ckpt", saved(state)).string();
  expect_message(message_of<std::runtime_error>([&] { model->load_weights(path); }), path + ": ",
                 "its tensors '" + name + "' are biases");
}

INSTANTIATE_TEST_SUITE_P(WeightSource,
                         Prefix,
                         ::testing::Values("module.",
                                           "_orig_mod.",
                                           "model.",
                                           "module._orig_mod.",
                                           "base_model.model.",
                                           "model.model.",
                                           "net.x-1.",
                                           "_fsdp_wrapped_module.module."));

class WeightNames : public Prefix {};

// torch.compile of a part of a model, and checkpoints of its layers' activations.
TEST_F(WeightNames, MayHaveWrappersInThem) {
  for (auto state : {ours_, theirs_}) {
    for (auto& [name, _] : state) {
      if (name.starts_with("model.layers.1.")) name.insert(15, "_checkpoint_wrapped_module.");
      if (name.starts_with("model.")) name.insert(6, "_orig_mod.");
    }
    expect_loaded(state);
  }
}

TEST_F(WeightNames, OfTwoModelsAreRefused) {
  auto state = with_prefix(ours_, "student.");
  for (auto& item : with_prefix(ours_, "teacher.")) state.push_back(item);
  const auto path = folder_.write("model.ckpt", saved(state));
  expect_message(message_of<std::runtime_error>([&] { WeightSource::open(path); }),
                 path.string() + ": ",
                 "has two embeddings, 'student.embedder.weight' and 'teacher.embedder.weight'");
}

TEST(WeightSource, IsNoShardOfSeveral) {
  const testing::TemporaryDirectory folder;
  const auto bytes = saved({{"w", at::ones({2})}}, /*bare=*/true);
  const auto refused = [&](const char* name, const std::string& expected) {
    const auto file = folder.write(name, bytes);
    expect_message(message_of<std::runtime_error>([&] { WeightSource::open(file); }),
                   file.string() + ": ", expected);
  };
  const auto path = folder.path().string();
  const std::string cure = "a part of a model: give the directory with all of them and their index";
  refused("model-00002-of-00005.safetensors", "is one shard of 5, " + cure + ", " + path);
  refused("pytorch_model-00001-of-00002.bin", "is one shard of 2, " + cure);
  refused("model.safetensors.index.json",
          "is the index of a model's shards: give the directory, " + path);
  for (const char* name : {"model-00001-of-00001.bin", "model-0001-of-0002.bin", "x.ckpt"}) {
    EXPECT_EQ(WeightSource::open(folder.write(name, bytes)).entries().size(), 1U);
  }
  EXPECT_THROW(WeightSource::open(folder.path() / "nowhere-00001-of-00002.bin"), FileNotFound);
}

TEST_F(WeightNames, OfNoGemmaAreKept) {
  const auto path = folder_.write("model.ckpt", saved({{"module.conv.weight", at::ones({2})}}));
  const auto source = WeightSource::open(path);
  EXPECT_EQ(source.entries().at(0).name, "module.conv.weight");
  EXPECT_EQ(source.name_in_file("module.conv.weight"), "module.conv.weight");
  EXPECT_THROW(source.name_in_file("conv.weight"), std::runtime_error);
}

}  // namespace
}  // namespace gemma
