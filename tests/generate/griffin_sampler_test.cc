#include <algorithm>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/generate/griffin_sampler.h>

namespace gemma::recurrentgemma {
namespace {

using testing::message_of;
using testing::tensors_close;
using testing::tensors_equal;

class GriffinSampler : public ::testing::Test {
 protected:
  GriffinSampler() { testing::randomize(*model_, 3); }

  static GriffinConfig config() {
    return {.vocab_size = 451,
            .width = 24,
            .mlp_expanded_width = 20,
            .num_heads = 2,
            .block_types = {TemporalBlockType::kRecurrent, TemporalBlockType::kAttention},
            .embeddings_scale_by_sqrt_dim = true,
            .attention_window_size = 4,
            .logits_soft_cap = 30};
  }

  // The likeliest tokens one after another, each from the whole text so far.
  std::vector<int64_t> likeliest(std::vector<int64_t> ids, int64_t steps) {
    const auto prompt = std::ssize(ids);
    for (int64_t i = 0; i < steps; ++i) {
      const auto tokens = at::tensor(ids, at::kLong).unsqueeze(0);
      const auto logits = model_->forward(tokens, at::arange(tokens.size(1)).unsqueeze(0)).first;
      ids.push_back((*logits)[0][-1].argmax().item<int64_t>());
    }
    return {ids.begin() + prompt, ids.end()};
  }

  static std::vector<int64_t> ids_of(const at::Tensor& tokens) {
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < tokens.size(0); ++i) ids.push_back(tokens[i].item<int64_t>());
    return ids;
  }

  Griffin model_{config()};
  Tokenizer tokenizer_{testing::data_path("tiny.model").string()};
  Sampler sampler_{model_, tokenizer_};
};

TEST_F(GriffinSampler, ContinuesATextByTheLikeliestTokens) {
  const auto output = sampler_({"It is a truth"}, 9, {.end_sampling_at_eos_token = false});
  EXPECT_EQ(ids_of(output.tokens[0]), likeliest(tokenizer_.encode("It is a truth"), 9));
  EXPECT_EQ(output.text[0], tokenizer_.decode(ids_of(output.tokens[0])));
  EXPECT_EQ(output.tokens[0].scalar_type(), at::kInt);
  EXPECT_TRUE(output.logits.empty());
}

TEST_F(GriffinSampler, EchoesThePromptWithItsLogits) {
  const auto prompt = tokenizer_.encode("It is");
  const auto output = sampler_({"It is"}, 3, {.echo = true, .return_logits = true});
  const auto length = std::ssize(prompt);
  EXPECT_TRUE(std::ranges::equal(ids_of(output.tokens[0].slice(0, 0, length)), prompt));
  ASSERT_EQ(output.logits[0].sizes(), (std::vector<int64_t>{length + 3, 451}));
  const auto tokens = output.tokens[0].slice(0, 0, length + 2).unsqueeze(0);
  const auto whole = *model_->forward(tokens, at::arange(length + 2).unsqueeze(0)).first;
  // A prompt's logits are those after its tokens; a new token's are those that it was chosen from.
  EXPECT_TRUE(tensors_close(output.logits[0].slice(0, 0, length), whole[0].slice(0, 0, length)));
  EXPECT_TRUE(tensors_close(output.logits[0].slice(0, length), whole[0].slice(0, length - 1)));
}

TEST_F(GriffinSampler, TheSameSeedDrawsTheSameTokens) {
  Sampler drawing(model_, tokenizer_, /*greedy_sampling=*/false);
  const auto drawn = [&](uint64_t seed) {
    at::manual_seed(seed);
    return ids_of(drawing({"It is"}, 12).tokens[0]);
  };
  EXPECT_EQ(drawn(1), drawn(1));
  EXPECT_NE(drawn(1), drawn(2));
}

TEST_F(GriffinSampler, AShorterPromptIsContinuedAsIfItWereAlone) {
  const auto both = sampler_({"It is", "It is a truth universally"}, 6,
                             {.echo = true, .end_sampling_at_eos_token = false});
  const auto alone = sampler_({"It is"}, 6, {.echo = true, .end_sampling_at_eos_token = false});
  EXPECT_TRUE(tensors_equal(both.tokens[0], alone.tokens[0]));
}

TEST_F(GriffinSampler, WithoutStepsThereIsThePromptAlone) {
  const auto output = sampler_({"It is"}, 0, {.echo = true});
  EXPECT_EQ(ids_of(output.tokens[0]), tokenizer_.encode("It is"));
  EXPECT_EQ(sampler_({"It is"}, 0).text[0], "");
}

TEST_F(GriffinSampler, APromptOfAnInstructionTunedModelIsAUsersTurn) {
  const Sampler sampler(model_, tokenizer_, true, /*is_it_model=*/true);
  EXPECT_EQ(ids_of(sampler.tokenize("Hi")),
            tokenizer_.encode("<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"));
}

TEST_F(GriffinSampler, BadArgumentsAreRefused) {
  EXPECT_EQ(message_of<std::invalid_argument>([&] { sampler_({"It is"}, -1); }),
            "Sampler: total_generation_steps is -1, but must be at least 0");
  EXPECT_EQ(message_of<std::invalid_argument>([&] { sampler_({}, 1); }),
            "Sampler: no input_strings; give one");
}

}  // namespace
}  // namespace gemma::recurrentgemma
