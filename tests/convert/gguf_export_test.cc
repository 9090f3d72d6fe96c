#include <cmath>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/saved_models.h"
#include "tests/testing.h"

#include <gemma/checkpoint/gguf_writer.h>
#include <gemma/checkpoint/torch_writer.h>
#include <gemma/convert/convert.h>
#include <gemma/convert/gguf_export.h>
#include <gemma/weights/gguf/gguf_config.h>
#include <gemma/weights/load_tokenizer.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::tensors_equal;

// A tiny model as a checkpoint, and the GGUF file made of it.
class ExportGguf : public ::testing::TestWithParam<Architecture> {
 protected:
  static GemmaConfig config_of(Architecture architecture) {
    auto config = testing::tiny_config(architecture);
    config.query_pre_attn_scalar = std::nullopt;
    config.hidden_size = 96;  // Whole blocks.
    config.intermediate_size = 64;
    config.num_attention_heads = 4;
    return config;
  }

  StateDict state_of(const GemmaConfig& config, at::ScalarType dtype) const {
    const DefaultDtypeGuard guard(dtype);
    GemmaForCausalLM model(config);
    testing::randomize(*model, /*seed=*/1);
    auto state = state_dict(*model);
    std::erase_if(state, [](const auto& item) { return is_rope_table(item.first); });
    // The file's 1 + weight in float32 has no bits below these.
    constexpr double kStep = 0x1p-23;
    for (auto& [name, tensor] : state) {
      if (name.ends_with("norm.weight")) tensor = tensor.div(kStep).round().mul(kStep);
    }
    return state;
  }

  // -> the GGUF file, opened.
  Checkpoint export_state(const StateDict& state,
                          const GemmaConfig& config,
                          const GgufOptions& options = {}) const {
    save_weights(ckpt_, state, /*overwrite=*/true);
    const Tokenizer tokenizer(testing::data_path("tiny.model").string());
    const auto bytes = export_gguf(Checkpoint::open(ckpt_), config, tokenizer, gguf_, options);
    EXPECT_EQ(bytes, std::filesystem::file_size(gguf_));
    return Checkpoint::open(gguf_);
  }

  const testing::TemporaryDirectory folder_;
  const std::filesystem::path ckpt_ = folder_.path() / "model.ckpt";
  const std::filesystem::path gguf_ = folder_.path() / "model.gguf";
};

TEST_P(ExportGguf, GivesTheModelBackBitForBit) {
  const auto config = config_of(GetParam());
  const auto state = state_of(config, at::kBFloat16);
  const WeightSource source = export_state(state, config);
  EXPECT_EQ(source.layout(), "GGUF");
  ASSERT_EQ(source.entries().size(), state.size());
  for (const auto& [name, tensor] : state) {
    ASSERT_TRUE(source.contains(name)) << name;
    const auto got = source.tensor(name);
    // Norms are float32 in the file.
    EXPECT_EQ(got.scalar_type(), name.ends_with("norm.weight") ? at::kFloat : at::kBFloat16)
        << name;
    EXPECT_TRUE(tensors_equal(got.to(at::kBFloat16), tensor)) << name;
  }
}

TEST_P(ExportGguf, WritesFloat64AsFloat32) {
  const auto config = config_of(GetParam());
  auto doubles = state_of(config, at::kBFloat16);
  for (auto& item : doubles) item.second = item.second.to(at::kDouble);
  const WeightSource source = export_state(doubles, config);
  for (const auto& [name, tensor] : doubles) {
    EXPECT_TRUE(tensors_equal(source.tensor(name), tensor.to(at::kFloat))) << name;
  }
}

TEST_P(ExportGguf, LoadsIntoAModelThatComputesTheSame) {
  const auto config = config_of(GetParam());
  GemmaForCausalLM model(config);
  testing::randomize(*model, /*seed=*/1);
  const auto state = state_of(config, at::kFloat);
  const auto checkpoint = export_state(state, config);
  auto read = gguf_config(checkpoint, "float32");
  EXPECT_EQ(read.tokenizer, gguf_.string());
  GemmaForCausalLM loaded(read);
  const auto report = load_weights(*loaded, checkpoint);
  EXPECT_TRUE(report.unexpected.empty());
  const auto ids = testing::random_ids(1, 6);
  EXPECT_TRUE(testing::tensors_close(testing::logits_by_pieces(loaded, ids, {6})[0],
                                     testing::logits_by_pieces(model, ids, {6})[0]));
}

TEST_P(ExportGguf, WritesTheConfigThatIsReadBack) {
  const auto config = config_of(GetParam());
  auto read = gguf_config(export_state(state_of(config, at::kFloat), config), config.dtype);
  read.tokenizer = config.tokenizer;
  if (config.attn_types) {  // One for each layer, or for each of a period.
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      EXPECT_EQ(read.attn_type(i), config.attn_type(i)) << i;
    }
    read.attn_types = config.attn_types;
  }
  EXPECT_EQ(read, config);
}

TEST_P(ExportGguf, QuantizesMatricesAndNothingElse) {
  const auto config = config_of(GetParam());
  const auto state = state_of(config, at::kFloat);
  const auto checkpoint = export_state(state, config, {.dtype = std::nullopt, .q8_0 = true});
  for (const auto& entry : checkpoint.entries()) {
    EXPECT_EQ(entry.encoding == Encoding::kQ8_0, entry.sizes.size() == 2) << entry.name;
  }
  const WeightSource source = checkpoint;
  for (const auto& [name, tensor] : state) {
    const auto error = (source.tensor(name) - tensor).abs().max().item<double>();
    // Half a step of 127, and the rounding of the step itself to float16.
    EXPECT_LE(error, tensor.abs().max().item<double>() * (0.5 / 127 + 0x1p-11)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Gguf,
                         ExportGguf,
                         ::testing::ValuesIn(testing::kArchitectures),
                         testing::architecture_name);

class Gemma3Gguf : public ExportGguf {
 protected:
  const GemmaConfig config_ = config_of(Architecture::kGemma3);
  const StateDict state_ = state_of(config_, at::kFloat);
};

TEST_F(Gemma3Gguf, TakesADtypeForMatrices) {
  const auto checkpoint = export_state(state_, config_, {.dtype = at::kHalf, .q8_0 = false});
  EXPECT_EQ(checkpoint.find("token_embd.weight")->dtype, at::kHalf);
  EXPECT_EQ(checkpoint.find("output_norm.weight")->dtype, at::kFloat);
}

TEST_F(Gemma3Gguf, HoldsTheTokenizer) {
  export_state(state_, config_);
  const Tokenizer original(testing::data_path("tiny.model").string());
  const auto read = load_tokenizer(gguf_.string());
  EXPECT_EQ(read.pieces(), original.pieces());
  EXPECT_EQ(read.encode("The ferry  leaves 漢 <end_of_turn>"),
            original.encode("The ferry  leaves 漢 <end_of_turn>"));
}

TEST_F(Gemma3Gguf, RefusesIntegersAndTensorsWithoutAPlace) {
  const auto refusal = [&](const StateDict& state) {
    return message_of<std::runtime_error>([&] { export_state(state, config_); });
  };
  auto integers = state_;
  testing::at_name(integers, "embedder.weight") = at::ones({451, 96}, at::kChar);
  EXPECT_TRUE(contains(refusal(integers), ckpt_.string() + ": tensor 'embedder.weight' is int8"));
  auto extra = state_;
  extra.emplace_back("model.layers.0.self_attn.bias", at::ones({3}));
  EXPECT_TRUE(contains(refusal(extra), "'model.layers.0.self_attn.bias' [3] has no place"));
  auto misshapen = state_;
  testing::at_name(misshapen, "model.layers.0.self_attn.qkv_proj.weight") = at::ones({100, 96});
  EXPECT_TRUE(contains(refusal(misshapen), "qkv_proj.weight' [100, 96] has no place"));
  EXPECT_FALSE(std::filesystem::exists(gguf_));
}

TEST_F(Gemma3Gguf, RefusesConfigsThatGgufCannotSay) {
  auto config = config_;
  config.query_pre_attn_scalar = 11;
  EXPECT_TRUE(contains(message_of<std::runtime_error>([&] { export_state(state_, config); }),
                       "scales its queries"));
  config = config_;
  config.vocab_size = 450;
  EXPECT_TRUE(contains(message_of<std::runtime_error>([&] { export_state(state_, config); }),
                       "450 rows of embedding, but the tokenizer 451 pieces"));
}

// A file with the tensors of `state` under the names that are given, of architecture gemma3.
Checkpoint write_tensors(const std::filesystem::path& path,
                         const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::vector<GgufTensor> announced;
  for (const auto& [name, tensor] : tensors) {
    announced.push_back(
        {.name = name, .sizes = tensor.sizes().vec(), .dtype = tensor.scalar_type()});
  }
  GgufWriter writer(path, {{"general.architecture", std::string("gemma3")}}, announced,
                    /*overwrite=*/true);
  for (const auto& [name, tensor] : tensors) writer.add(name, tensor);
  writer.finish();
  return Checkpoint::open(path);
}

TEST_F(Gemma3Gguf, TakesAnEmbeddingThatIsThereTwiceOnlyIfItIsTheSame) {
  const auto embedding = testing::random_tensor({2000, 4}, /*seed=*/1);
  const WeightSource source =
      write_tensors(gguf_, {{"token_embd.weight", embedding}, {"output.weight", embedding}});
  EXPECT_EQ(source.entries().size(), 1U);
  EXPECT_NO_THROW(source.check_complete());
  auto other = embedding.clone();
  other[1999][3] += 1;
  const WeightSource refused =
      write_tensors(gguf_, {{"token_embd.weight", embedding}, {"output.weight", other}});
  EXPECT_EQ(refused.entries().size(), 1U);
  EXPECT_TRUE(contains(message_of<std::runtime_error>([&] { refused.check_complete(); }),
                       "tensor 'output.weight' is not 'token_embd.weight' again"));
}

// Below a module of the model, so that it is not loaded without them; those of pictures are not.
TEST_F(Gemma3Gguf, KeepsWhatItDoesNotKnow) {
  const WeightSource source = write_tensors(gguf_, {{"blk.0.attn_q.bias", at::ones({2})},
                                                    {"blk.1.attn_k.weight", at::ones({2})},
                                                    {"output_norm.bias", at::ones({2})},
                                                    {"v.blk.0.attn_q.bias", at::ones({2})},
                                                    {"mm.input_projection.weight", at::ones({2})},
                                                    {"output.weight", at::ones({2})}});
  std::vector<std::string> names;
  for (const auto& entry : source.entries()) names.push_back(entry.name);
  EXPECT_EQ(names,
            (std::vector<std::string>{"model.layers.0.attn_q.bias", "model.layers.1.attn_k.weight",
                                      "model.output_norm.bias", "v.blk.0.attn_q.bias",
                                      "mm.input_projection.weight", "model.output.weight"}));
  EXPECT_EQ(source.name_in_file("model.output_norm.bias"), "output_norm.bias");
}

TEST_F(Gemma3Gguf, PassesRotaryFactorsOverOnlyIfTheyAreOnes) {
  auto factors = at::ones({2});
  EXPECT_TRUE(
      WeightSource(write_tensors(gguf_, {{"rope_freqs.weight", factors}})).entries().empty());
  factors[1] = 8;
  EXPECT_EQ(
      WeightSource(write_tensors(gguf_, {{"rope_freqs.weight", factors}})).entries().at(0).name,
      "model.rope_freqs.weight");
}

TEST_F(Gemma3Gguf, SaysWhichPartOfAMatrixIsMissing) {
  EXPECT_TRUE(contains(message_of<std::runtime_error>([&] {
                         const WeightSource refused =
                             write_tensors(gguf_, {{"blk.0.attn_q.weight", at::ones({2, 2})}});
                       }),
                       "has no tensor 'blk.0.attn_k.weight'"));
}

class GgufTokenizer : public ::testing::Test {
 protected:
  std::string refusal(const std::vector<std::pair<std::string, GgufValue>>& metadata) const {
    const testing::TemporaryDirectory folder;
    const auto path = folder.path() / "model.gguf";
    GgufWriter(path, metadata, {}).finish();
    auto message = message_of<std::runtime_error>([&] { load_tokenizer(path.string()); });
    EXPECT_TRUE(contains(message, path.string()));
    EXPECT_EQ(message.find('\n'), std::string::npos);
    return message;
  }

  // Four pieces of control, and those that are given.
  static std::vector<std::pair<std::string, GgufValue>> vocabulary(
      const std::vector<std::string>& texts,
      std::vector<float> scores,
      std::vector<int32_t> types) {
    std::vector<std::string> all = {"<pad>", "<eos>", "<bos>", "<unk>"};
    all.insert(all.end(), texts.begin(), texts.end());
    scores.insert(scores.begin(), 4, -1000);
    types.insert(types.begin(), 4, 3);
    return {{"tokenizer.ggml.model", std::string("llama")},
            {"tokenizer.ggml.tokens", all},
            {"tokenizer.ggml.scores", scores},
            {"tokenizer.ggml.token_type", types}};
  }
};

TEST_F(GgufTokenizer, PutsBackWhatConvertersChange) {
  const testing::TemporaryDirectory folder;
  const auto path = folder.path() / "model.gguf";
  GgufWriter(path, vocabulary({"<turn>", "  ", "a b", "x"}, {-1000, -1000, -7, -5}, {3, 4, 1, 1}),
             {})
      .finish();
  const auto pieces = load_tokenizer(path.string()).pieces();
  EXPECT_EQ(pieces[0], (Piece{"<pad>", 0, PieceType::kControl}));
  EXPECT_EQ(pieces[3], (Piece{"<unk>", 0, PieceType::kUnknown}));
  EXPECT_EQ(pieces[4], (Piece{"<turn>", 0, PieceType::kUserDefined}));
  EXPECT_EQ(pieces[5], (Piece{"▁▁", 0, PieceType::kUserDefined}));
  EXPECT_EQ(pieces[6], (Piece{"a b", -7, PieceType::kNormal}));
}

TEST_F(GgufTokenizer, RefusesVocabulariesThatMakeNoModel) {
  EXPECT_TRUE(contains(refusal({}), "has no key 'tokenizer.ggml.model'"));
  EXPECT_TRUE(contains(refusal({{"tokenizer.ggml.model", std::string("gpt2")}}),
                       "of kind 'gpt2', not 'llama'"));
  EXPECT_TRUE(contains(refusal(vocabulary({"a"}, {0}, {})), "has 5 tokens, 5 scores and 4 types"));
  EXPECT_TRUE(contains(refusal(vocabulary({"a"}, {0}, {7})), "token 4 is of type 7, not 1 to 6"));
  EXPECT_TRUE(contains(refusal(vocabulary({"a", "a"}, {0, 0}, {1, 1})), "a is already defined"));
  EXPECT_TRUE(contains(refusal(vocabulary({""}, {0}, {1})), "no SentencePiece model"));
  EXPECT_TRUE(
      contains(refusal(vocabulary({std::string("a\0b", 3)}, {0}, {4})), "piece 4 has a NUL"));
  EXPECT_TRUE(contains(refusal(vocabulary({"a"}, {NAN}, {1})), "piece 4 has a score that is NaN"));
  EXPECT_TRUE(contains(refusal(vocabulary({"<0x41>"}, {0}, {6})), "no SentencePiece model"));
  EXPECT_TRUE(contains(refusal({{"tokenizer.ggml.model", std::string("llama")},
                                {"tokenizer.ggml.tokens", std::vector<std::string>{"a"}},
                                {"tokenizer.ggml.scores", std::vector<float>{0}},
                                {"tokenizer.ggml.token_type", std::vector<int32_t>{1}}}),
                       "do not begin with pad, eos, bos and '<unk>'"));
}

}  // namespace
}  // namespace gemma
