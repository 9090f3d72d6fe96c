#include <filesystem>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/testing.h"

#include <gemma/checkpoint/gguf_writer.h>
#include <gemma/checkpoint/torch_writer.h>
#include <gemma/weights/gguf/gguf_config.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using Metadata = std::vector<std::pair<std::string, GgufValue>>;

constexpr auto kLocal = AttentionType::kLocalSliding;
constexpr auto kGlobal = AttentionType::kGlobal;

class GgufConfig : public ::testing::Test {
 protected:
  Checkpoint open(const Metadata& metadata, int64_t vocab_size) const {
    const auto embedding = at::zeros({vocab_size, 1});
    GgufWriter writer(
        path_, metadata,
        {{.name = "token_embd.weight", .sizes = {vocab_size, 1}, .dtype = at::kFloat}},
        /*overwrite=*/true);
    writer.add("token_embd.weight", embedding);
    writer.finish();
    return Checkpoint::open(path_);
  }

  GemmaConfig read(const Metadata& metadata, int64_t vocab_size = 10) const {
    auto config = gguf_config(open(metadata, vocab_size));
    EXPECT_EQ(config.tokenizer, path_.string());
    return config;
  }

  std::string refusal(const Metadata& metadata) const {
    auto message = message_of<std::runtime_error>([&] { gguf_config(open(metadata, 10)); });
    EXPECT_TRUE(message.starts_with(path_.string() + ": ")) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
    return message;
  }

  const testing::TemporaryDirectory folder_;
  const std::filesystem::path path_ = folder_.path() / "model.gguf";
};

// What llama.cpp's converter writes for it, and nothing that it leaves to be assumed.
Metadata metadata_of(const GemmaConfig& config, const std::string& architecture) {
  const auto key = [&](const char* name) { return architecture + "." + name; };
  const auto number = [](int64_t value) { return static_cast<uint32_t>(value); };
  Metadata metadata{{"general.architecture", architecture},
                    {key("context_length"), number(config.max_position_embeddings)},
                    {key("embedding_length"), number(config.hidden_size)},
                    {key("block_count"), number(config.num_hidden_layers)},
                    {key("feed_forward_length"), number(config.intermediate_size)},
                    {key("attention.head_count"), number(config.num_attention_heads)},
                    {key("attention.head_count_kv"), number(config.num_key_value_heads)},
                    {key("attention.layer_norm_rms_epsilon"), 1e-6F},
                    {key("attention.key_length"), number(config.head_dim)},
                    {key("attention.value_length"), number(config.head_dim)}};
  if (config.sliding_window_size) {
    metadata.emplace_back(key("attention.sliding_window"), number(*config.sliding_window_size));
  }
  if (architecture == "gemma3") metadata.emplace_back(key("rope.freq_base"), 1e6F);
  if (config.rope_scaling_factor) {
    metadata.emplace_back(key("rope.scaling.type"), std::string("linear"));
    metadata.emplace_back(key("rope.scaling.factor"), 8.0F);
  }
  return metadata;
}

TEST_F(GgufConfig, IsThatOfEachVariant) {
  for (const auto& variant : model_variants()) {
    SCOPED_TRACE(variant);
    auto want = get_model_config(variant);
    const auto* const architecture = want.architecture == Architecture::kGemma1   ? "gemma"
                                     : want.architecture == Architecture::kGemma2 ? "gemma2"
                                                                                  : "gemma3";
    auto got = read(metadata_of(want, architecture), want.vocab_size);
    // The vision part is a file of its own.
    want.vision_config = std::nullopt;
    got.tokenizer = want.tokenizer;
    EXPECT_EQ(got, want);
  }
}

Metadata small(const std::string& architecture, const Metadata& more = {}) {
  auto config = get_model_config("2b");
  config.num_hidden_layers = 3;
  auto metadata = metadata_of(config, architecture);
  for (const auto& item : more) {
    std::erase_if(metadata, [&](const auto& known) { return known.first == item.first; });
    metadata.push_back(item);
  }
  return metadata;
}

TEST_F(GgufConfig, TakesTheDtypeItIsGiven) {
  EXPECT_EQ(gguf_config(open(small("gemma"), 10), "float32").dtype, "float32");
}

TEST_F(GgufConfig, AssumesWhatTheFamilyHas) {
  const auto gemma2 = read(small("gemma2"));
  EXPECT_EQ(gemma2.sliding_window_size, 4096);
  EXPECT_EQ(gemma2.attn_types, (std::vector{kLocal, kGlobal, kLocal}));
  EXPECT_EQ(gemma2.attn_logit_softcapping, 50);
  EXPECT_EQ(gemma2.final_logit_softcapping, 30);
  const auto gemma3 = read(small("gemma3"));
  EXPECT_EQ(gemma3.sliding_window_size, std::nullopt);
  EXPECT_EQ(gemma3.attn_types, std::nullopt);
  EXPECT_EQ(gemma3.rope_wave_length->at(kLocal), 10'000);
}

TEST_F(GgufConfig, ReadsPatternsAsANumberAndAsOneForEachLayer) {
  const std::pair<std::string, GgufValue> window{"gemma3.attention.sliding_window", uint32_t{7}};
  const std::string pattern = "gemma3.attention.sliding_window_pattern";
  EXPECT_EQ(read(small("gemma3", {window, {pattern, uint32_t{3}}})).attn_types,
            (std::vector{kLocal, kLocal, kGlobal}));
  EXPECT_EQ(
      read(small("gemma3", {window, {pattern, std::vector<bool>{false, true, true}}})).attn_types,
      (std::vector{kGlobal, kLocal, kLocal}));
}

TEST_F(GgufConfig, ReadsNumbersThatFloat32OnlyComesNearTo) {
  const auto config = read(small("gemma2", {{"gemma2.attention.layer_norm_rms_epsilon", 1e-5F},
                                            {"gemma2.attn_logit_softcapping", 5.7F},
                                            {"gemma2.final_logit_softcapping", 0.0F}}));
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.attn_logit_softcapping, 5.7);
  EXPECT_EQ(config.final_logit_softcapping, std::nullopt);
}

TEST_F(GgufConfig, RefusesWhatIsNoGemmaOrMakesNoModel) {
  EXPECT_TRUE(contains(refusal({}), "has no key 'general.architecture'"));
  EXPECT_TRUE(contains(refusal({{"general.architecture", std::string("llama\n")}}),
                       "is of architecture 'llama\\x0a'; gemma, gemma2 and gemma3 are read"));
  EXPECT_TRUE(
      contains(refusal({{"general.architecture", uint32_t{3}}}), "is uint32, not a string"));
  EXPECT_TRUE(contains(refusal({{"general.architecture", std::string("gemma3")}}),
                       "has no key 'gemma3.context_length'"));
  const auto says = [&](const char* key, const GgufValue& value, const char* what) {
    EXPECT_TRUE(contains(refusal(small("gemma3", {{key, value}})), what));
  };
  says("gemma3.block_count", uint32_t{0}, "num_hidden_layers is 0");
  says("gemma3.block_count", std::string("18"), "'gemma3.block_count' is string");
  says("gemma3.attention.head_count_kv", uint32_t{3}, "must be a multiple of num_key_value_heads");
  says("gemma3.attention.value_length", uint32_t{128}, "keys of 256 numbers and values of 128");
  says("gemma3.rope.freq_base", 0.5F, "'gemma3.rope.freq_base' is 0.5, not a whole number");
  says("gemma3.rope.freq_base", std::numeric_limits<float>::quiet_NaN(), "is nan");
  const std::pair<std::string, GgufValue> window{"gemma3.attention.sliding_window", uint32_t{7}};
  EXPECT_TRUE(contains(
      refusal(small("gemma3", {window, {"gemma3.attention.sliding_window_pattern", uint32_t{0}}})),
      "sliding_window_pattern' is 0, not 1 to 1000"));
  EXPECT_TRUE(contains(refusal(small("gemma2", {{"gemma2.rope.freq_base", 1e6F}})),
                       "Gemma 1 and 2 have 10000"));
}

TEST_F(GgufConfig, RefusesOtherFilesAndThoseWithoutAnEmbedding) {
  const auto ckpt = folder_.path() / "model.ckpt";
  save_weights(ckpt, {{"w", at::ones({2})}});
  EXPECT_TRUE(contains(message_of<std::runtime_error>([&] { gguf_config(Checkpoint::open(ckpt)); }),
                       "is not a GGUF file"));
  GgufWriter(path_, small("gemma"), {}).finish();
  EXPECT_TRUE(
      contains(message_of<std::runtime_error>([&] { gguf_config(Checkpoint::open(path_)); }),
               "has no matrix 'token_embd.weight'"));
}

}  // namespace
}  // namespace gemma
