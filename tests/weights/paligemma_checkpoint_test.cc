#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/saved_models.h"
#include "tests/testing.h"
#include "tests/tiny_paligemma.h"

#include <gemma/weights/paligemma_checkpoint.h>

namespace gemma {
namespace {

namespace op = testing::op;
using testing::expect_message;
using testing::message_of;
using testing::saved;

// A file of a published model's shapes without contents: one number seen through strides of zero.
std::string sparse_paligemma(const PaliGemmaConfig& config) {
  std::vector<std::string> items;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& sizes) {
    items.push_back(op::text(name));
    items.push_back(op::tensor({.sizes = sizes,
                                .strides = std::vector<int64_t>(sizes.size(), 0),
                                .numel = 1,
                                .storage = "BFloat16Storage"}));
  };
  const auto& text = config.text_config;
  add("multi_modal_projector.linear.weight", {2, 2});
  add("text_token_embedder.weight", {257'152, text.hidden_size});
  add("siglip_vision_model.position_embedding.weight", {config.image_seq_length(), 1152});
  add("model.layers.0.mlp.gate_proj.weight", {text.intermediate_size, text.hidden_size});
  return testing::torch_file(testing::pickle_of(op::dict(items)), {std::string(2, '\0')});
}

class PaliGemmaCheckpoint : public ::testing::Test {
 protected:
  std::string write(const StateDict& state) const {
    return folder_.write("model.ckpt", saved(state)).string();
  }
  const testing::TemporaryDirectory folder_;
};

TEST_F(PaliGemmaCheckpoint, IsKnownByItsShapes) {
  for (const auto& name : paligemma_variants()) {
    auto want = get_paligemma_config(name);
    want.text_config.vocab_size = 257'152;
    const auto path = folder_.write("model.ckpt", sparse_paligemma(want));
    EXPECT_EQ(paligemma_config_from_pretrained(path), want) << name;
  }
}

TEST_F(PaliGemmaCheckpoint, SaysWhatIsMissingWhereNothingTells) {
  const auto path = write(weights_of(*testing::random_paligemma(Architecture::kGemma1)));
  expect_message(message_of<std::runtime_error>([&] { paligemma_config_from_pretrained(path); }),
                 path + ": ", "put a config.json of Hugging Face beside the weights");
}

TEST_F(PaliGemmaCheckpoint, OfAnotherFamilyIsRefused) {
  const auto path = write(weights_of(*testing::random_gemma3(/*seed=*/1)));
  expect_message(message_of<std::runtime_error>([&] { paligemma_config_from_pretrained(path); }),
                 path + ": ", "PaliGemmaConfig takes PaliGemma");
  auto model = testing::random_paligemma(Architecture::kGemma2);
  const testing::Unchanged unchanged(*model);
  expect_message(message_of<std::runtime_error>([&] { model->load_weights(path); }), path + ": ",
                 "PaliGemmaForConditionalGeneration takes PaliGemma");
}

TEST_F(PaliGemmaCheckpoint, IsLoadedUnderItsOwnNames) {
  const auto source = testing::random_paligemma(Architecture::kGemma2, /*seed=*/1);
  auto model = testing::random_paligemma(Architecture::kGemma2, /*seed=*/2);
  model->load_weights(write(weights_of(*source)));
  testing::expect_state(*model, state_dict(*source));
}

}  // namespace
}  // namespace gemma
