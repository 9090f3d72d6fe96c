#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/saved_models.h"
#include "tests/testing.h"

#include <gemma/checkpoint/torch_writer.h>
#include <gemma/convert/hf_writer.h>
#include <gemma/weights/hf/hf_config.h>

namespace gemma {
namespace {

namespace fs = std::filesystem;
using testing::tensors_equal;

class WriteHf : public ::testing::Test {
 protected:
  WriteHf() {
    save_weights(folder_.path() / "model.ckpt", state_);
    fs::create_directory(out_);
  }

  SavedModel write(uint64_t shard_bytes) const {
    const auto source = WeightSource::open(folder_.path() / "model.ckpt");
    return write_hf(source, model_->config(), /*options=*/{}, out_, /*progress=*/{}, shard_bytes);
  }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& file : fs::directory_iterator(out_)) names.push_back(file.path().filename());
    std::ranges::sort(names);
    return names;
  }

  void expect_the_models_weights() const {
    const auto written = WeightSource::open(out_);
    size_t weights = 0;
    for (const auto& [name, tensor] : state_) {
      if (is_rope_table(name)) continue;
      ++weights;
      EXPECT_TRUE(tensors_equal(written.tensor(name), tensor)) << name;
    }
    EXPECT_EQ(written.entries().size(), weights);
  }

  const GemmaForCausalLM model_ = testing::random_gemma3(/*seed=*/1);
  const StateDict state_ = state_dict(*model_);
  const testing::TemporaryDirectory folder_;
  const fs::path out_ = folder_.path() / "hf";
};

TEST_F(WriteHf, OneFileHoldsWhatFitsIntoOne) {
  const auto saved = write(/*shard_bytes=*/1'000'000'000);
  EXPECT_EQ(saved.shards, 1);
  EXPECT_EQ(names(), (std::vector<std::string>{"config.json", "model.safetensors"}));
  expect_the_models_weights();
}

TEST_F(WriteHf, ShardsAreAsLargeAsTheyMayBe) {
  const auto whole = write(/*shard_bytes=*/1'000'000'000);
  for (const auto& name : names()) fs::remove(out_ / name);
  constexpr uint64_t kMost = 20'000;
  const auto saved = write(kMost);
  EXPECT_GT(saved.shards, 2);
  EXPECT_EQ(saved.bytes, whole.bytes);
  EXPECT_EQ(saved.tensors, whole.tensors);
  EXPECT_EQ(std::ssize(names()), saved.shards + 2);  // The index, and config.json.
  uint64_t previous = kMost;
  for (const auto& name : names()) {
    if (!name.ends_with(".safetensors")) continue;
    uint64_t bytes = 0;
    const auto shard = Checkpoint::open(out_ / name);
    for (const auto& entry : shard.entries()) bytes += entry.nbytes;
    EXPECT_TRUE(bytes <= kMost || shard.entries().size() == 1) << name;
    EXPECT_GT(previous + shard.entries().front().nbytes, kMost) << name;
    previous = bytes;
  }
  expect_the_models_weights();
}

TEST(HfLayout, RowsThatPadTheEmbeddingAreLeftOut) {
  const testing::TemporaryDirectory folder;
  const auto path = folder.path() / "model.ckpt";
  const auto embedding = testing::random_tensor({262208, 2}, /*seed=*/1);
  save_weights(path, {{"model.embed_tokens.weight", embedding}});
  const auto source = WeightSource::open(path);
  EXPECT_TRUE(tensors_equal(source.tensor("embedder.weight"), embedding.narrow(0, 0, 262144)));
}

}  // namespace
}  // namespace gemma
