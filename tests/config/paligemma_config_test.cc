#include <stdexcept>

#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/config/paligemma_config.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;

TEST(PaliGemmaConfig, HasThePublishedSizes) {
  EXPECT_EQ(paligemma_variants().size(), 12U);
  EXPECT_EQ(paligemma_variants().front(), "paligemma-3b-224");
  EXPECT_EQ(paligemma_variants().back(), "paligemma2-28b-896");
  for (const auto& name : paligemma_variants()) validate(get_paligemma_config(name));
  const auto first = get_paligemma_config("paligemma-3b-448", "float32");
  EXPECT_EQ(first.image_seq_length(), 1024);
  EXPECT_EQ(first.vision_config.encoding_sequence_length, 1024);
  EXPECT_EQ(first.text_config.architecture, Architecture::kGemma1);
  EXPECT_EQ(first.text_config.vocab_size, 257'216);
  EXPECT_EQ(first.text_config.dtype, "float32");
  EXPECT_EQ(first.vision_config.dtype, "float32");
  EXPECT_EQ(first.projection_dim, 2048);
  const auto last = get_paligemma_config("paligemma2-28b-896");
  EXPECT_EQ(last.image_seq_length(), 4096);
  EXPECT_EQ(last.text_config.num_hidden_layers, 46);
  EXPECT_EQ(last.projection_dim, 4608);
  EXPECT_TRUE(
      contains(message_of<std::invalid_argument>([] { get_paligemma_config("paligemma-4b-224"); }),
               "'paligemma-4b-224' is unknown; valid: paligemma-3b-224, "));
}

TEST(PaliGemmaConfig, ThatMakesNoModelIsRefusedByItsField) {
  const auto refusal = [](auto change) {
    auto config = get_paligemma_config("paligemma2-3b-224");
    change(config);
    return message_of<std::invalid_argument>([&] { validate(config); });
  };
  EXPECT_TRUE(contains(refusal([](auto& c) { c.text_config = get_model_config("1b"); }),
                       "PaliGemmaConfig: text_config must be of a Gemma 1 or 2"));
  EXPECT_TRUE(contains(refusal([](auto& c) { c.text_config.head_dim = 3; }), "GemmaConfig: "));
  EXPECT_TRUE(contains(refusal([](auto& c) { c.vision_config.image_size = 225; }),
                       "image_size (225) must be a multiple of the patches' size (14)"));
  EXPECT_TRUE(
      contains(refusal([](auto& c) { c.vision_config.conv2d_patch_size = 0; }), "size (0)"));
  EXPECT_TRUE(contains(refusal([](auto& c) { c.projection_dim = 7; }),
                       "projection_dim (7) must be the text model's hidden_size (2304)"));
  EXPECT_TRUE(contains(refusal([](auto& c) { c.image_token_id = 0; }), "image_token_id is 0"));
}

}  // namespace
}  // namespace gemma
