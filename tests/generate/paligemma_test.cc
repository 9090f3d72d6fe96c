#include <algorithm>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "tests/testing.h"
#include "tests/tiny_paligemma.h"

#include <gemma/engine/engine.h>
#include <gemma/engine/model_runner.h>
#include <gemma/generate/generate.h>
#include <gemma/ops/ops.h>
#include <gemma/vision/paligemma_preprocessor.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::near_to;

const std::vector<Architecture> kTextModels = {Architecture::kGemma1, Architecture::kGemma2};

Image random_image(uint64_t seed, int64_t height, int64_t width) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return Image(at::randint(0, 256, {height, width, 3}, generator, at::kByte));
}

std::vector<Prompt> prompts() {
  return {{random_image(1, 20, 30), "detect cat"},
          {random_image(2, 16, 16), "What is in this picture, and what is not?"},
          {"no picture at all"},
          {random_image(3, 9, 50), random_image(4, 50, 9), "compare"}};
}

std::vector<std::string> answers(PaliGemmaForConditionalGeneration& model,
                                 std::span<const Prompt> given,
                                 int64_t output_len = 12) {
  return model->generate(given, torch::kCPU, output_len);
}

TEST(PaliGemma, AnswersTheSameWithBothNumerics) {
  for (const auto architecture : kTextModels) {
    auto model = testing::random_paligemma(architecture);
    const auto exact = answers(model, prompts());
    EXPECT_EQ(std::set(exact.begin(), exact.end()).size(), exact.size()) << "too much alike";
    model->set_numerics(Numerics::kFast);
    EXPECT_EQ(answers(model, prompts()), exact);
  }
}

TEST(PaliGemma, AnswersAlikeAloneAndInABatch) {
  for (const auto architecture : kTextModels) {
    auto model = testing::random_paligemma(architecture);
    for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
      model->set_numerics(numerics);
      const auto all = prompts();
      const auto together = answers(model, all);
      for (size_t i = 0; i < all.size(); ++i) {
        EXPECT_EQ(answers(model, std::span(all).subspan(i, 1)).front(), together[i]);
      }
      EXPECT_EQ(generate(model, all, torch::kCPU, 12, std::nullopt, 1.0, 64), together);
    }
  }
}

// The logits of a prompt's last token and of each that follows, by passes of an engine -> [T, V].
at::Tensor by_engine(PaliGemmaForConditionalGeneration& model,
                     const PromptTokens& prompt,
                     const std::vector<int64_t>& next) {
  ModelRunner runner(model, {.chunk = std::ssize(prompt.ids)});
  auto sequence = runner.make_sequence();
  const ModelRunner::Feed feed{&sequence, prompt.ids, prompt.images};
  std::vector<at::Tensor> hidden = {runner.prompt({&feed, 1})};
  for (const auto token : next) {
    const ModelRunner::Next one{&sequence, token};
    hidden.push_back(runner.decode({&one, 1}));
  }
  const auto logits = model->logits(at::cat(hidden), /*buffer=*/{});
  const auto cap = model->config().final_logit_softcapping;
  return cap ? softcap(logits, *cap) : logits;
}

// The same by one pass over all.
at::Tensor by_forward(PaliGemmaForConditionalGeneration& model,
                      const Image& image,
                      const PromptTokens& prompt,
                      const std::vector<int64_t>& next) {
  const auto& config = model->paligemma_config();
  auto ids = prompt.ids;
  std::fill_n(ids.begin(), config.image_seq_length(), config.image_token_id);
  ids.insert(ids.end(), next.begin(), next.end());
  auto types = at::ones({1, std::ssize(ids)}, at::kLong);
  types.narrow(1, 0, std::ssize(prompt.ids)).fill_(0);
  const auto pixels = paligemma_pixel_values(image, config.vision_config.image_size).unsqueeze(0);
  const auto logits = model->forward(at::tensor(ids, at::kLong).unsqueeze(0), pixels, types);
  return logits[0].slice(0, std::ssize(prompt.ids) - 1);
}

TEST(PaliGemma, DecodesWhatOnePassOverAllGives) {
  const auto image = random_image(7, 31, 17);
  const std::vector<int64_t> next = {20, 5, 300, 77, 12, 440, 9};
  for (const auto architecture : kTextModels) {
    auto model = testing::random_paligemma(architecture);
    const auto prompt = model->prompt_tokens({image, "detect cat"});
    const auto want = by_forward(model, image, prompt, next).to(at::kDouble);
    EXPECT_TRUE(near_to(by_engine(model, prompt, next), want, 1e-5));
    model->set_numerics(Numerics::kFast);
    EXPECT_TRUE(near_to(by_engine(model, prompt, next), want, 1e-5));
    EXPECT_TRUE(near_to(by_forward(model, image, prompt, next), want, 1e-5));
  }
}

TEST(PaliGemma, IsServedByAnEngine) {
  for (const auto architecture : kTextModels) {
    auto model = testing::random_paligemma(architecture);
    model->set_numerics(Numerics::kFast);
    const auto all = prompts();
    const auto want = answers(model, all);
    Engine engine(model, {.kv_dtype = torch::kFloat32});
    std::vector<Request> requests;
    for (const auto& prompt : all) {
      auto [ids, images] = model->prompt_tokens(prompt);
      requests.push_back({.prompt = std::move(ids),
                          .images = std::move(images),
                          .rules = {.sampling = {.temperature = 0}, .max_tokens = 12}});
    }
    const auto got = engine.generate(std::move(requests));
    for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(got[i].text, want[i]);
  }
}

// Blocks of local layers before a window are gone by then.
TEST(PaliGemma, MayMeetAnotherPromptBehindItsAnswer) {
  auto model = testing::random_paligemma(Architecture::kGemma2);
  const auto prompt = model->prompt_tokens(prompts().front());
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    model->set_numerics(numerics);
    ModelRunner runner(model, {.chunk = 64});
    auto sequence = runner.make_sequence();
    const ModelRunner::Feed feed{&sequence, prompt.ids, prompt.images};
    for (int turn = 0; turn < 5; ++turn) {
      EXPECT_TRUE(runner.prompt({&feed, 1}).isfinite().all().item<bool>());
    }
  }
}

TEST(PaliGemma, HasAPromptOfImagesBosTextAndALineBreak) {
  auto model = testing::random_paligemma(Architecture::kGemma1);
  const auto prompt = model->prompt_tokens({random_image(1, 8, 8), "detect ", "cat"});
  const auto& tokenizer = model->tokenizer();
  auto want = tokenizer.encode("detect cat\n");  // With bos.
  want.insert(want.begin(), 16, 0);              // 257152 has no row in the embedding.
  EXPECT_EQ(prompt.ids, want);
  ASSERT_EQ(prompt.images.size(), 1U);
  EXPECT_EQ(prompt.images[0].first, 0);
  EXPECT_EQ(prompt.images[0].embeddings.size(0), std::ssize(want));
}

TEST(PaliGemma, RefusesPromptsThatAreNone) {
  auto model = testing::random_paligemma(Architecture::kGemma1);
  const auto refusal = [&](const Prompt& prompt, int64_t output_len) {
    return message_of<std::invalid_argument>([&] { answers(model, {&prompt, 1}, output_len); });
  };
  EXPECT_TRUE(contains(refusal({"a", random_image(1, 8, 8)}, 1), "give images first"));
  EXPECT_TRUE(contains(refusal({"a"}, 100'000), "exceed max_position_embeddings"));
  EXPECT_TRUE(contains(refusal({"a"}, -1), "output_len is -1"));
}

TEST(PaliGemma, HasNoPooling) {
  auto model = testing::random_paligemma(Architecture::kGemma1);
  EXPECT_TRUE(model->siglip_vision_model->avg_pool.is_empty());
  const auto images = at::zeros({3, 3, 16, 16});
  EXPECT_EQ(model->encode_images(images).sizes(),
            (std::vector<int64_t>{3, 16, model->config().hidden_size}));
}

}  // namespace
}  // namespace gemma
