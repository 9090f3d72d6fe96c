#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/version.h>

#include "tests/testing.h"

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/generate/causal_lm.h>
#include <gemma/modules/masks.h>
#include <gemma/modules/rms_norm.h>
#include <gemma/modules/sampler.h>
#include <gemma/ops/rotary.h>
#include <gemma/weights/weights.h>

// What gemma_pytorch gave on tiny models: scripts/make_golden.py wrote it to tests/golden, and
// tests/python/golden_cases.py says what was run. Where this machine computes as the one of the
// goldens, results are equal to the last bit; elsewhere they are close, and what hangs on a draw is
// not compared.
namespace gemma {
namespace {

using testing::tensors_close;
using testing::tensors_equal;

constexpr auto kGlobal = AttentionType::kGlobal;
constexpr auto kLocal = AttentionType::kLocalSliding;
constexpr int64_t kPromptLen = 5;
constexpr int64_t kSteps = 5;
constexpr uint64_t kSeed = 17;

std::filesystem::path golden_path(const std::string& name) {
  return testing::data_path("tiny.model").parent_path().parent_path() / "golden" / name;
}

struct Mode {
  std::string name;
  std::string dtype;
  bool quant;
};
std::ostream& operator<<(std::ostream& out, const Mode& mode) { return out << mode.name; }

const std::vector<Mode> kModes = {{"float32", "float32", false},
                                  {"bfloat16", "bfloat16", false},
                                  {"float32_quant", "float32", true},
                                  {"bfloat16_quant", "bfloat16", true}};

// golden_cases.CONFIGS, which manifest.json repeats.
const std::map<std::string, GemmaConfig> kConfigs = {
    {"gemma1",
     {.architecture = Architecture::kGemma1,
      .vocab_size = 43,
      .max_position_embeddings = 64,
      .num_hidden_layers = 2,
      .num_attention_heads = 3,
      .num_key_value_heads = 3,
      .hidden_size = 15,
      .intermediate_size = 23,
      .head_dim = 6,
      .tokenizer = std::nullopt}},
    {"gemma2",
     {.architecture = Architecture::kGemma2,
      .vocab_size = 43,
      .max_position_embeddings = 64,
      .num_hidden_layers = 3,
      .num_attention_heads = 4,
      .num_key_value_heads = 2,
      .hidden_size = 16,
      .intermediate_size = 23,
      .head_dim = 10,
      .tokenizer = std::nullopt,
      .attn_types = {{kLocal, kGlobal}},
      .sliding_window_size = 3,
      .final_logit_softcapping = 3.3,
      .attn_logit_softcapping = 5.7,
      .query_pre_attn_scalar = 7,
      .use_pre_ffw_norm = true,
      .use_post_ffw_norm = true}},
    {"gemma3",
     {.architecture = Architecture::kGemma3,
      .vocab_size = 43,
      .max_position_embeddings = 64,
      .num_hidden_layers = 3,
      .num_attention_heads = 2,
      .num_key_value_heads = 1,
      .hidden_size = 14,
      .intermediate_size = 23,
      .head_dim = 24,
      .tokenizer = std::nullopt,
      .attn_types = {{kLocal, kGlobal}},
      .sliding_window_size = 4,
      .use_pre_ffw_norm = true,
      .use_post_ffw_norm = true,
      .rope_wave_length = {{{kLocal, 10'000}, {kGlobal, 1'000'000}}},
      .use_qk_norm = true}},
};

// The weights of a golden as a model of this mode holds them: int8 with scales, or the same
// integers times 1/256.
StateDict weights_for(const Checkpoint& golden, const Mode& mode) {
  const std::string prefix = "weights.";
  const auto dtype = dtype_from_string(mode.dtype);
  StateDict weights;
  for (const auto& entry : golden.entries()) {
    if (!entry.name.starts_with(prefix)) continue;
    auto value = golden.tensor(entry.name);
    if (value.scalar_type() != at::kChar) {
      if (!mode.quant && entry.name.ends_with("weight_scaler")) continue;
      value = value.to(dtype);
    } else if (!mode.quant) {
      value = (value.to(at::kFloat) / 256).to(dtype);
    }
    weights.emplace_back(entry.name.substr(prefix.size()), value);
  }
  return weights;
}

// How this machine differs from that of the goldens; empty if it computes alike. A version and an
// instruction set do not say how a processor rounds, so LibTorch's own product is compared too.
std::string difference_from_manifest() {
  std::ifstream file(golden_path("manifest.json"));
  const std::string manifest{std::istreambuf_iterator<char>(file), {}};
  const auto says = [&](const std::string& key, const std::string& value) {
    return manifest.find(fmt::format("\"{}\": \"{}", key, value)) != std::string::npos;
  };
  if (!says("torch", TORCH_VERSION)) return "another version of LibTorch: " TORCH_VERSION;
  const auto capability = at::get_cpu_capability();
  if (!says("cpu_capability", capability)) return "another instruction set: " + capability;
  for (const auto& [name, config] : kConfigs) {
    const auto golden = Checkpoint::open(golden_path(name + ".pt"));
    for (const auto& mode : {kModes[0], kModes[1]}) {
      const auto x = golden.tensor("input.hidden").to(dtype_from_string(mode.dtype));
      for (const auto& [key, weight] : weights_for(golden, mode)) {
        if (key != "model.layers.0.mlp.gate_proj.weight") continue;
        const auto want = golden.tensor(mode.name + ".modules.linear");
        if (!at::equal(at::linear(x, weight), want)) return "at::linear rounds otherwise";
      }
    }
  }
  return {};
}

class Golden : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const auto* const name :
         {"manifest.json", "functions.pt", "gemma1.pt", "gemma2.pt", "gemma3.pt"}) {
      if (!std::filesystem::exists(golden_path(name))) {
        GTEST_SKIP() << "tests/golden/" << name << " is missing; make it by scripts/make_golden.py";
      }
    }
    at::set_num_threads(1);  // As when the goldens were made.
    static const std::string difference = difference_from_manifest();
    exact_ = difference.empty();
    if (!exact_) std::cout << "Compared within a tolerance: " << difference << "\n";
  }

  void expect_golden(const Checkpoint& golden,
                     const std::string& name,
                     const at::Tensor& got) const {
    const auto want = golden.tensor(name);
    if (exact_) {
      EXPECT_TRUE(tensors_equal(got, want)) << name;
    } else if (want.is_floating_point() || want.is_complex()) {
      EXPECT_TRUE(tensors_close(got, want)) << name;
    }
  }

  bool exact_ = false;
};

// golden_cases' tiny.sampling: rows that differ.
struct Sampling {
  explicit Sampling(int64_t batch_size, bool greedy) {
    if (!greedy) {
      temperatures = at::tensor({0.7F, 1.3F, 1.0F, 2.0F}).narrow(0, 0, batch_size);
    }
    top_ps = at::tensor({0.9F, 1.0F, 0.5F, 0.95F}).narrow(0, 0, batch_size);
    top_ks = at::tensor({40, 5, 1, 400}, at::kLong).narrow(0, 0, batch_size);
  }
  std::optional<at::Tensor> temperatures;
  at::Tensor top_ps, top_ks;
};

TEST_F(Golden, RotaryTablesAreTheReferences) {
  const auto golden = Checkpoint::open(golden_path("functions.pt"));
  expect_golden(golden, "rope.24.40.10000.1", precompute_freqs_cis(24, 40, 10'000, 1));
  expect_golden(golden, "rope.24.40.1000000.8", precompute_freqs_cis(24, 40, 1'000'000, 8));
  expect_golden(golden, "rope.6.17.500.3", precompute_freqs_cis(6, 17, 500, 3));
  expect_golden(golden, "rope.256.3.1000000.1", precompute_freqs_cis(256, 3, 1'000'000, 1));
}

TEST_F(Golden, RotationAndNormsAreTheReferences) {
  const auto golden = Checkpoint::open(golden_path("functions.pt"));
  for (const std::string name : {"float32", "bfloat16"}) {
    SCOPED_TRACE(name);
    const DefaultDtypeGuard guard(dtype_from_string(name));
    const auto input = [&](const std::string& key) {
      return golden.tensor("input." + key).to(dtype_from_string(name));
    };
    expect_golden(golden, name + ".rotary",
                  apply_rotary_emb(input("rotary.x"), precompute_freqs_cis(24, 7)));
    for (const bool offset : {true, false}) {
      RMSNorm norm(/*dim=*/35, /*eps=*/1e-2, offset);
      norm->weight.copy_(input("rms_norm.weight"));
      expect_golden(golden, name + ".rms_norm." + (offset ? "offset" : "plain"),
                    norm(input("rms_norm.x")));
    }
  }
}

TEST_F(Golden, DrawsAreTheReferences) {
  constexpr int64_t kVocab = 61;
  constexpr int64_t kBatch = 4;
  constexpr int kDraws = 6;
  const auto golden = Checkpoint::open(golden_path("functions.pt"));
  for (const std::string name : {"float32", "bfloat16"}) {
    const auto input = [&](const std::string& key) {
      return golden.tensor("input.sampler." + key).to(dtype_from_string(name));
    };
    for (const bool capped : {false, true}) {
      for (const bool greedy : {true, false}) {
        GemmaConfig config;
        if (capped) config.final_logit_softcapping = 3.3;
        Sampler sampler(kVocab, config);
        const Sampling sampling(kBatch, greedy);
        at::manual_seed(kSeed);
        std::vector<at::Tensor> tokens;
        at::Tensor logits;
        for (int draw = 0; draw < kDraws; ++draw) {
          std::tie(tokens.emplace_back(), logits) = sampler->forward(
              input("embedding"), input("hidden_states"), at::ones({1}, at::kLong),
              sampling.temperatures, sampling.top_ps, sampling.top_ks, input("embedding_bias"));
        }
        const auto prefix = fmt::format("{}.sampler.{}.{}.", name, capped ? "softcap" : "plain",
                                        greedy ? "greedy" : "seeded");
        expect_golden(golden, prefix + "tokens", at::stack(tokens));
        expect_golden(golden, prefix + "logits", logits);
      }
    }
  }
}

class GoldenModel : public Golden,
                    public ::testing::WithParamInterface<std::tuple<std::string, Mode>> {
 protected:
  void SetUp() override {
    Golden::SetUp();
    if (IsSkipped()) return;
    const auto& [name, mode] = GetParam();
    golden_ = Checkpoint::open(golden_path(name + ".pt"));
    auto config = kConfigs.at(name);
    config.dtype = mode.dtype;
    config.quant = mode.quant;
    const DefaultDtypeGuard guard(config.get_dtype());
    model_ = GemmaForCausalLM(config);
    load_state_dict(*model_, weights_for(*golden_, mode));
  }

  void expect(const std::string& name, const at::Tensor& got) const {
    expect_golden(*golden_, std::get<1>(GetParam()).name + "." + name, got);
  }

  at::Tensor input(const std::string& name) const { return golden_->tensor("input." + name); }

  // A prompt, then tokens one by one; what the model chooses is not fed back.
  struct Decoded {
    std::vector<at::Tensor> tokens, logits;
    std::vector<at::Tensor> k, v;
  };
  Decoded decode(bool greedy) {
    const auto ids = input("ids");
    const auto& config = model_->config();
    constexpr int64_t kLength = kPromptLen + kSteps;
    const Sampling sampling(ids.size(0), greedy);
    const auto caches = model_->make_kv_caches(ids.size(0), kLength, torch::kCPU);
    Decoded out;
    auto positions = at::arange(kPromptLen);
    for (int64_t step = 0; step <= kSteps; ++step) {
      const auto local_mask =
          config.sliding_window_size
              ? std::optional(sliding_window_mask(positions, kLength, *config.sliding_window_size))
              : std::nullopt;
      auto [tokens, logits] = model_->forward(
          ids.index_select(1, positions), positions, std::nullopt, caches,
          causal_mask(positions, kLength), at::full({1}, positions.size(0) - 1, at::kLong),
          sampling.temperatures, sampling.top_ps, sampling.top_ks, local_mask);
      out.tokens.push_back(std::move(tokens));
      out.logits.push_back(std::move(logits));
      positions = at::full({1}, kPromptLen + step, at::kLong);
    }
    for (const auto& cache : caches) {
      out.k.push_back(cache.k);
      out.v.push_back(cache.v);
    }
    return out;
  }

  std::optional<Checkpoint> golden_;
  GemmaForCausalLM model_{nullptr};
};

INSTANTIATE_TEST_SUITE_P(Reference,
                         GoldenModel,
                         ::testing::Combine(::testing::Values("gemma1", "gemma2", "gemma3"),
                                            ::testing::ValuesIn(kModes)),
                         [](const auto& row) {
                           return std::get<0>(row.param) + "_" + std::get<1>(row.param).name;
                         });

TEST_P(GoldenModel, ModulesAreTheReferences) {
  const auto& config = model_->config();
  const auto x = input("hidden").to(config.get_dtype());
  const auto positions = at::arange(kPromptLen);
  const auto mask = causal_mask(positions, kPromptLen);
  const auto local_mask =
      config.sliding_window_size
          ? std::optional(sliding_window_mask(positions, kPromptLen, *config.sliding_window_size))
          : std::nullopt;
  const auto table = [&](const at::Tensor& own) {
    return (own.defined() ? own : model_->freqs_cis).narrow(0, 0, kPromptLen);
  };
  const FreqsCis freqs_cis = {{kLocal, table(model_->local_freqs_cis)},
                              {kGlobal, table(model_->global_freqs_cis)}};
  const auto caches = model_->make_kv_caches(/*batch_size=*/1, kPromptLen, torch::kCPU);

  expect("modules.embedder", model_->embedder(input("ids")));
  expect("modules.norm", model_->model->norm(x));
  for (size_t i = 0; i < 2; ++i) {
    auto& layer = model_->model->layers->at<DecoderLayerImpl>(i);
    const auto& freqs = freqs_cis.at(layer.attn_type());
    const auto prefix = fmt::format("modules.layers.{}", i);
    if (i == 0) expect("modules.linear", layer.mlp->gate_proj(x));
    expect(prefix + ".self_attn",
           layer.self_attn->forward(x, freqs, positions, caches[i], mask, local_mask));
    expect(prefix + ".mlp", layer.mlp(x));
    expect(prefix, layer.forward(x, freqs, positions, caches[i], mask, local_mask));
  }
  expect("modules.model",
         model_->model->forward(x, freqs_cis, positions, caches, mask, local_mask));
}

TEST_P(GoldenModel, DecodingIsTheReferences) {
  at::manual_seed(kSeed);
  const auto seeded = decode(/*greedy=*/false);
  expect("seeded.tokens", at::stack(seeded.tokens));
  const auto greedy = decode(/*greedy=*/true);
  expect("greedy.tokens", at::stack(greedy.tokens));
  expect("greedy.logits", at::stack(greedy.logits));
  expect("caches.k", at::stack(greedy.k));
  expect("caches.v", at::stack(greedy.v));
}

}  // namespace
}  // namespace gemma
