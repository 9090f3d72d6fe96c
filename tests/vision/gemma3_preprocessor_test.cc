#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "tests/pictures.h"
#include "tests/testing.h"

#include <gemma/vision/gemma3_preprocessor.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::tensors_equal;
using Ids = std::vector<int64_t>;

class Gemma3Preprocessor : public ::testing::Test {
 protected:
  Gemma3Preprocessor() : tokenizer(testing::data_path("tiny.model").string()) {
    config = get_config_for_4b("float32");
    config.vision_config->image_size = 4;
    config.vision_config->encoding_sequence_length = 2;
  }

  ProcessedPrompts processed(const std::vector<Prompt>& prompts, int64_t output_len = 0) const {
    return tokenize_raw_input(tokenizer, prompts, config, output_len, torch::kCPU);
  }

  // What a prompt's ids are: bos, and these pieces; of which an empty one is an image.
  Ids ids_of(const std::vector<std::string>& pieces) const {
    Ids ids = {tokenizer.bos_id()};
    const auto append = [&](const Ids& more) { ids.insert(ids.end(), more.begin(), more.end()); };
    for (const auto& piece : pieces) {
      if (!piece.empty()) append(tokenizer.encode(piece, /*bos=*/false));
      if (!piece.empty()) continue;
      append(tokenizer.encode("\n\n", /*bos=*/false));
      append({255999, 0, 0, 256000});
      append(tokenizer.encode("\n\n", /*bos=*/false));
    }
    return ids;
  }

  Tokenizer tokenizer;
  GemmaConfig config;
};

Image white(int64_t height, int64_t width) {
  return Image(at::full({height, width, 3}, 255, at::kByte));
}

TEST_F(Gemma3Preprocessor, PassesTextAndResizesImages) {
  const auto parts = gemma3_input_preprocessor({"a", white(5, 9), "b"}, /*image_size=*/4);
  ASSERT_EQ(parts.size(), 3);
  EXPECT_EQ(std::get<std::string>(parts[0]), "a");
  EXPECT_TRUE(
      tensors_equal(std::get<torch::Tensor>(parts[1]).contiguous(), at::full({3, 4, 4}, 1.0F)));
  EXPECT_EQ(std::get<std::string>(parts[2]), "b");
}

TEST_F(Gemma3Preprocessor, PutsCropsBehindTheImage) {
  const auto parts = gemma3_input_preprocessor({white(256, 512)}, /*image_size=*/4);
  ASSERT_EQ(parts.size(), 5);
  EXPECT_EQ(std::get<std::string>(parts[0]), "here is the original image");
  EXPECT_EQ(std::get<std::string>(parts[2]), "and here are some crops to help you see better");
  for (const size_t i : {1, 3, 4}) EXPECT_TRUE(std::holds_alternative<torch::Tensor>(parts[i]));
}

TEST_F(Gemma3Preprocessor, TokenizesAnImageAsPlaceholders) {
  const auto got = processed({{"tea", white(3, 3), "cup"}});
  EXPECT_TRUE(tensors_equal(got.user_input_token_ids[0], at::tensor(ids_of({"tea", "", "cup"}))));
  EXPECT_EQ(got.image_batch->sizes(), (std::vector<int64_t>{1, 1, 3, 4, 4}));
  EXPECT_EQ(got.image_batch->scalar_type(), torch::kFloat);
}

TEST_F(Gemma3Preprocessor, PadsPromptsAndImages) {
  const auto got = processed({{"tea"}, {white(3, 3), "x", white(3, 3)}, {}}, /*output_len=*/5);
  const auto shortest = static_cast<int64_t>(ids_of({}).size());
  const auto longest = ids_of({"", "x", ""});
  const auto length = std::ssize(longest);
  EXPECT_EQ(got.batch_size, 3);
  EXPECT_EQ(got.min_prompt_len, shortest);
  EXPECT_EQ(got.max_prompt_len, length);
  EXPECT_EQ(got.max_seq_len, length + 5);
  EXPECT_EQ(got.user_input_token_ids.sizes(), (std::vector<int64_t>{3, length + 5}));
  EXPECT_TRUE(tensors_equal(got.user_input_token_ids[1].slice(0, 0, length), at::tensor(longest)));
  EXPECT_TRUE(tensors_equal(got.user_input_token_ids[1].slice(0, length),
                            at::full({5}, tokenizer.pad_id(), at::kLong)));
  EXPECT_TRUE(tensors_equal(*got.image_presence_mask,
                            at::tensor({0, 0, 1, 1, 0, 0}).view({3, 2}).to(at::kBool)));
  EXPECT_TRUE(tensors_equal((*got.image_batch)[0].contiguous(), at::full({2, 3, 4, 4}, 0.0F)));
  EXPECT_TRUE(tensors_equal((*got.image_batch)[1].contiguous(), at::full({2, 3, 4, 4}, 1.0F)));
}

TEST_F(Gemma3Preprocessor, MakesNoImagesOfText) {
  const auto got = processed({{"tea", "cup"}});
  EXPECT_FALSE(got.image_batch.has_value());
  EXPECT_FALSE(got.image_presence_mask.has_value());
  EXPECT_TRUE(tensors_equal(got.user_input_token_ids[0], at::tensor(ids_of({"tea", "cup"}))));
}

TEST_F(Gemma3Preprocessor, RefusesWhatItCannotDo) {
  const auto error = [&](const std::vector<Prompt>& prompts, int64_t output_len) {
    return message_of<std::invalid_argument>([&] { processed(prompts, output_len); });
  };
  EXPECT_TRUE(contains(error({}, 1), "there are no prompts"));
  EXPECT_TRUE(contains(error({{"tea"}}, -1), "output_len is -1, but must not be negative"));
  config.vision_config->input_channels = 4;
  EXPECT_TRUE(contains(error({{"tea"}}, 1), "input_channels is 4, but images have 3"));
  config.vision_config = std::nullopt;
  EXPECT_TRUE(contains(error({{"tea"}}, 1), "config.vision_config is absent"));
}

}  // namespace
}  // namespace gemma
