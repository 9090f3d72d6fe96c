#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/engine/model_runner.h>
#include <gemma/generate/causal_lm.h>

namespace gemma {
namespace {

using testing::contains;
using testing::kArchitectures;
using testing::message_of;
using testing::near_to;
using testing::random_ids;
using testing::random_tensor;
using testing::randomize;
using testing::tensors_close;
using testing::tensors_equal;
using testing::tiny_config;

constexpr int64_t kRows = 2;
constexpr int64_t kLength = 9;  // Past the window of the tiny configs.

using Cache = std::map<std::string, at::Tensor>;

TapFunction replacing_by(const at::Tensor& with) {
  return [with](const at::Tensor& /*value*/, const TapSite& /*site*/) { return with; };
}

TapFunction keeping_in(Cache& cache) {
  return [&cache](const at::Tensor& value, const TapSite& site) {
    cache[std::string(site.name)] = value.clone();
    return std::nullopt;
  };
}

class TapsOf : public ::testing::TestWithParam<Architecture> {
 protected:
  TapsOf() { randomize(*model_, /*seed=*/1); }

  // The values of the points with the taps there.
  Cache run(const std::vector<std::string>& points, const std::vector<Tap>& taps = {}) {
    Cache cache;
    auto all = taps;
    for (const auto& point : points) all.push_back({point, keeping_in(cache)});
    const auto handle = model_->add_taps(all);
    cache["logits"] = model_->run(ids_);
    model_->remove_taps(handle);
    return cache;
  }

  at::Tensor value(const std::string& point) { return run({point}).at(point); }

  bool is_first() const { return GetParam() == Architecture::kGemma1; }
  at::Tensor noise() const {
    return random_tensor({kRows, kLength, config_.hidden_size}, /*seed=*/3);
  }

  GemmaConfig config_ = tiny_config(GetParam());
  GemmaForCausalLM model_{config_};
  at::Tensor ids_ = random_ids(kRows, kLength);
};
INSTANTIATE_TEST_SUITE_P(Taps,
                         TapsOf,
                         ::testing::ValuesIn(kArchitectures),
                         testing::architecture_name);

TEST_P(TapsOf, ThatOnlyLookLeaveTheBits) {
  testing::for_each_kind_of_weight([this](at::ScalarType dtype, bool quant) {
    auto config = config_;
    config.dtype = dtype == at::kFloat ? "float32" : "bfloat16";
    config.quant = quant;
    GemmaForCausalLM model(config);
    randomize(*model, /*seed=*/1);
    const auto want = model->run(ids_);
    int64_t calls = 0;
    const auto handle = model->add_taps({{"*", [&](const at::Tensor&, const TapSite&) {
                                            ++calls;
                                            return std::nullopt;
                                          }}});
    EXPECT_TRUE(tensors_equal(model->run(ids_), want));
    EXPECT_GT(calls, 30 * config.num_hidden_layers);
    model->remove_taps(handle);
    const auto before = calls;
    EXPECT_TRUE(tensors_equal(model->run(ids_), want));
    EXPECT_EQ(calls, before);
  });
}

TEST_P(TapsOf, HaveTheNamesOfTransformerLens) {
  std::map<std::string, int64_t> times;
  for (const auto& names : model_->tap_names()) {
    for (const auto& name : names) ++times[name];
  }
  for (const auto* const name : {"hook_embed",
                                 "embed.hook_out",
                                 "ln_final.hook_scale",
                                 "ln_final.hook_normalized",
                                 "ln_final.hook_out",
                                 "blocks.1.hook_resid_pre",
                                 "blocks.1.hook_in",
                                 "blocks.1.ln1.hook_in",
                                 "blocks.1.ln1.hook_scale",
                                 "blocks.1.ln1.hook_normalized",
                                 "blocks.1.ln1.hook_out",
                                 "blocks.1.attn.hook_q",
                                 "blocks.1.attn.q.hook_out",
                                 "blocks.1.attn.hook_k",
                                 "blocks.1.attn.k.hook_out",
                                 "blocks.1.attn.hook_v",
                                 "blocks.1.attn.v.hook_out",
                                 "blocks.1.attn.hook_rot_q",
                                 "blocks.1.attn.hook_rot_k",
                                 "blocks.1.attn.hook_attn_scores",
                                 "blocks.1.attn.hook_pattern",
                                 "blocks.1.attn.hook_z",
                                 "blocks.1.attn.o.hook_in",
                                 "blocks.1.attn.hook_result",
                                 "blocks.1.attn.hook_out",
                                 "blocks.1.hook_attn_out",
                                 "blocks.1.hook_resid_mid",
                                 "blocks.1.ln2.hook_in",
                                 "blocks.1.ln2.hook_scale",
                                 "blocks.1.ln2.hook_normalized",
                                 "blocks.1.mlp.hook_in",
                                 "blocks.1.mlp.hook_pre",
                                 "blocks.1.mlp.gate.hook_out",
                                 "blocks.1.mlp.hook_pre_linear",
                                 "blocks.1.mlp.in.hook_out",
                                 "blocks.1.mlp.hook_post",
                                 "blocks.1.mlp.out.hook_in",
                                 "blocks.1.mlp.hook_out",
                                 "blocks.1.hook_mlp_out",
                                 "blocks.1.hook_resid_post",
                                 "blocks.1.hook_out"}) {
    EXPECT_EQ(times[name], 1) << name;
  }
  for (const auto* const name :
       {"ln1_post.hook_scale", "ln1_post.hook_out", "ln2_post.hook_scale"}) {
    EXPECT_EQ(times[fmt::format("blocks.1.{}", name)], is_first() ? 0 : 1) << name;
  }
  const bool has_head_norms = GetParam() == Architecture::kGemma3;
  for (const auto* const name : {"q_norm.hook_in", "q_norm.hook_scale", "k_norm.hook_normalized"}) {
    EXPECT_EQ(times[fmt::format("blocks.1.attn.{}", name)], has_head_norms ? 1 : 0) << name;
  }
}

TEST_P(TapsOf, AreCalledByTheNameThatTheyAskedFor) {
  std::set<std::string> seen;
  const TapFunction note = [&](const at::Tensor&, const TapSite& site) {
    seen.insert(std::string(site.name));
    return std::nullopt;
  };
  const auto handle = model_->add_taps({{"blocks.[01].hook_resid_p?st", note},
                                        {"blocks.1.hook_out", note},
                                        {"model.layers.0.hook_out", note},
                                        {"unembed.hook_out", note}});
  model_->run(ids_);
  model_->remove_taps(handle);
  EXPECT_EQ(seen, (std::set<std::string>{"blocks.0.hook_resid_post", "blocks.1.hook_resid_post",
                                         "blocks.1.hook_out", "model.layers.0.hook_out",
                                         "unembed.hook_out"}));
}

TEST_P(TapsOf, SeeValuesOfTheDocumentedShapes) {
  const auto B = kRows, T = kLength, E = config_.hidden_size, H = config_.num_attention_heads;
  const auto K = config_.num_key_value_heads, D = config_.head_dim, F = config_.intermediate_size;
  const std::map<std::string, std::vector<int64_t>> want{
      {"hook_embed", {B, T, E}},
      {"blocks.1.hook_resid_pre", {B, T, E}},
      {"blocks.1.ln1.hook_scale", {B, T, 1}},
      {"blocks.1.ln1.hook_normalized", {B, T, E}},
      {"blocks.1.attn.hook_q", {B, T, H, D}},
      {"blocks.1.attn.hook_k", {B, T, K, D}},
      {"blocks.1.attn.hook_v", {B, T, K, D}},
      {"blocks.1.attn.hook_rot_q", {B, T, H, D}},
      {"blocks.1.attn.hook_rot_k", {B, T, K, D}},
      {"blocks.1.attn.hook_attn_scores", {B, H, T, T}},
      {"blocks.1.attn.hook_pattern", {B, H, T, T}},
      {"blocks.1.attn.hook_z", {B, T, H, D}},
      {"blocks.1.attn.hook_result", {B, T, H, E}},
      {"blocks.1.mlp.hook_pre", {B, T, F}},
      {"blocks.1.mlp.hook_pre_linear", {B, T, F}},
      {"blocks.1.mlp.hook_post", {B, T, F}},
      {"blocks.1.hook_mlp_out", {B, T, E}},
      {"unembed.hook_out", {B, T, config_.vocab_size}},
  };
  std::vector<std::string> points;
  for (const auto& [point, _] : want) points.push_back(point);
  const auto got = run(points);
  for (const auto& [point, sizes] : want) EXPECT_EQ(got.at(point).sizes(), sizes) << point;
}

TEST_P(TapsOf, SeeWhatTheFormulasSay) {
  const std::string block = "blocks.1.";
  const auto run_all =
      run({block + "hook_resid_pre", block + "hook_attn_out", block + "hook_resid_mid",
           block + "hook_mlp_out", block + "hook_resid_post", block + "ln1.hook_scale",
           block + "ln1.hook_normalized", block + "attn.hook_rot_q", block + "attn.hook_rot_k",
           block + "attn.hook_attn_scores", block + "attn.hook_pattern", block + "attn.hook_z",
           block + "attn.hook_v", block + "attn.hook_result", block + "attn.hook_out",
           block + "mlp.hook_pre", block + "mlp.hook_pre_linear", block + "mlp.hook_post"});
  const auto at = [&](const char* point) { return run_all.at(block + point); };
  EXPECT_TRUE(tensors_equal(at("hook_resid_pre") + at("hook_attn_out"), at("hook_resid_mid")));
  EXPECT_TRUE(tensors_equal(at("hook_resid_mid") + at("hook_mlp_out"), at("hook_resid_post")));

  const auto rms = (at("hook_resid_pre").pow(2).mean(-1, /*keepdim=*/true) + 1e-6).sqrt();
  EXPECT_TRUE(tensors_close(at("ln1.hook_scale"), rms));
  EXPECT_TRUE(tensors_close(at("ln1.hook_normalized"), at("hook_resid_pre") / rms));

  const auto scaling =
      std::pow(static_cast<double>(config_.query_pre_attn_scalar.value_or(config_.head_dim)), -0.5);
  const auto heads = [&](const at::Tensor& x) {  // [B, T, K, D] -> [B, H, T, D]
    return x.repeat_interleave(config_.num_attention_heads / x.size(2), 2).transpose(1, 2);
  };
  auto scores = at::matmul(heads(at("attn.hook_rot_q")) * scaling,
                           heads(at("attn.hook_rot_k")).transpose(2, 3));
  if (const auto cap = config_.attn_logit_softcapping) scores = at::tanh(scores / *cap) * *cap;
  const auto visible = at("attn.hook_attn_scores") > -1e30;
  EXPECT_FALSE(visible.all().item<bool>());
  EXPECT_TRUE(tensors_close(at("attn.hook_attn_scores").masked_select(visible),
                            scores.masked_select(visible)));
  EXPECT_TRUE(tensors_close(at("attn.hook_pattern"), at("attn.hook_attn_scores").softmax(-1)));
  EXPECT_TRUE(
      tensors_close(at("attn.hook_z"),
                    at::matmul(at("attn.hook_pattern"), heads(at("attn.hook_v"))).transpose(1, 2)));
  EXPECT_TRUE(tensors_close(at("attn.hook_result").sum(2), at("attn.hook_out")));
  EXPECT_TRUE(tensors_close(at("mlp.hook_post"),
                            at::gelu(at("mlp.hook_pre"), "tanh") * at("mlp.hook_pre_linear")));
}

TEST_P(TapsOf, OfTheResidualChangeWhatIsAddedToAsWell) {
  const auto with = noise();
  const auto cache = run({"blocks.1.hook_attn_out", "blocks.1.hook_resid_mid"},
                         {{"blocks.1.hook_resid_pre", replacing_by(with)}});
  EXPECT_TRUE(tensors_equal(cache.at("blocks.1.hook_resid_mid"),
                            with + cache.at("blocks.1.hook_attn_out")));
  EXPECT_TRUE(tensors_equal(cache.at("logits"), model_->run(with, {.first = 1})));

  const auto mid = run({"blocks.1.hook_mlp_out", "blocks.1.hook_resid_post"},
                       {{"blocks.1.ln2.hook_in", replacing_by(with)}});
  EXPECT_TRUE(
      tensors_equal(mid.at("blocks.1.hook_resid_post"), with + mid.at("blocks.1.hook_mlp_out")));
}

TEST_P(TapsOf, OfANormsInputLeaveTheResidual) {
  const auto plain = run({"blocks.1.hook_resid_pre", "blocks.1.hook_resid_mid"});
  const TapFunction zero = [](const at::Tensor& value, const TapSite&) {
    value.zero_();  // In place.
    return std::nullopt;
  };
  const auto first =
      run({"blocks.1.hook_attn_out", "blocks.1.hook_resid_mid"}, {{"blocks.1.ln1.hook_in", zero}});
  EXPECT_TRUE(tensors_equal(first.at("blocks.1.hook_attn_out"),
                            at::zeros_like(first.at("blocks.1.hook_attn_out"))));
  EXPECT_TRUE(
      tensors_equal(first.at("blocks.1.hook_resid_mid"), plain.at("blocks.1.hook_resid_pre")));
  const auto second = run({"blocks.1.hook_resid_post"}, {{"blocks.1.hook_mlp_in", zero}});
  EXPECT_TRUE(
      tensors_equal(second.at("blocks.1.hook_resid_post"), plain.at("blocks.1.hook_resid_mid")));
}

TEST_P(TapsOf, OfAnyPointTakeEffect) {
  const auto plain = model_->run(ids_);
  const TapFunction change = [](const at::Tensor& value, const TapSite&) {
    auto half = value.is_floating_point() ? value * 0.5 : (value + 1).remainder(7);
    half.select(1, 0).zero_();
    return half;
  };
  for (const auto& names : model_->tap_names()) {
    if (names.front() == "sampler.hook_logits") continue;  // `run` draws nothing.
    const auto handle = model_->add_taps({{names.front(), change}});
    EXPECT_FALSE(at::equal(model_->run(ids_), plain)) << names.front();
    model_->remove_taps(handle);
  }
  EXPECT_TRUE(tensors_equal(model_->run(ids_), plain));
}

TEST_P(TapsOf, MayWriteToTheValue) {
  const TapFunction half = [](const at::Tensor& value, const TapSite&) { return value * 0.5; };
  const TapFunction half_in_place = [](const at::Tensor& value, const TapSite&) {
    value.mul_(0.5);
    return std::nullopt;
  };
  for (const auto& names : model_->tap_names()) {
    if (contains(names.front(), "embedder.hook_in")) continue;  // Whole numbers.
    const auto returned = run({}, {{names.front(), half}}).at("logits");
    const auto written = run({}, {{names.front(), half_in_place}}).at("logits");
    EXPECT_TRUE(tensors_equal(written, returned)) << names.front();
  }
}

TEST_P(TapsOf, ComputeSomeLayersAlone) {
  const auto logits = model_->run(ids_);
  for (int64_t layer = 0; layer <= config_.num_hidden_layers; ++layer) {
    const auto residual = model_->run(ids_, {.end = layer});
    const auto point = layer < config_.num_hidden_layers
                           ? fmt::format("blocks.{}.hook_resid_pre", layer)
                           : fmt::format("blocks.{}.hook_resid_post", layer - 1);
    EXPECT_TRUE(tensors_equal(residual, value(point))) << point;
    if (layer == 0) continue;
    EXPECT_TRUE(tensors_equal(model_->run(residual, {.first = layer}), logits)) << layer;
  }
}

TEST_P(TapsOf, SeeARunThatHasTheModelsLogits) {
  const auto want = testing::logits_by_pieces(model_, ids_, {kLength});
  EXPECT_TRUE(tensors_close(model_->run(ids_).select(1, kLength - 1), want.front()));
}

TEST_P(TapsOf, RefuseWhatFastNumericsDoNotComputeByItself) {
  model_->set_numerics(Numerics::kFast);
  const auto look = [](const at::Tensor&, const TapSite&) { return std::nullopt; };
  for (const auto* const point : {"blocks.0.ln1.hook_scale", "blocks.0.attn.hook_pattern",
                                  "blocks.0.attn.hook_result", "blocks.0.attn.hook_rot_k"}) {
    const auto message =
        message_of<std::invalid_argument>([&] { model_->add_taps({{point, look}}); });
    EXPECT_TRUE(contains(message, "use set_numerics(\"exact\")")) << point;
  }
  // Nothing was added.
  EXPECT_FALSE(model_->model->layers->at<DecoderLayerImpl>(0).self_attn->is_tapped());
  model_->set_numerics(Numerics::kExact);
  const auto handle = model_->add_taps({{"blocks.0.attn.hook_pattern", look}});
  EXPECT_THROW(model_->set_numerics(Numerics::kFast), std::invalid_argument);
  EXPECT_EQ(model_->numerics(), Numerics::kExact);
  model_->remove_taps(handle);
}

TEST_P(TapsOf, AgreeInFastNumerics) {
  std::vector<std::string> points{"hook_embed", "ln_final.hook_out", "unembed.hook_out"};
  for (const auto* const point :
       {"hook_resid_pre", "ln1.hook_in", "ln1.hook_out", "attn.hook_q", "attn.hook_k",
        "attn.hook_v", "attn.hook_z", "attn.hook_out", "hook_attn_out", "hook_resid_mid",
        "mlp.hook_in", "mlp.hook_pre", "mlp.hook_post", "hook_mlp_out", "hook_resid_post"}) {
    points.push_back(fmt::format("blocks.1.{}", point));
  }
  const auto want = run(points);
  model_->set_numerics(Numerics::kFast);
  const auto got = run(points);
  for (const auto& [point, value] : want) EXPECT_TRUE(near_to(got.at(point), value, 1e-5)) << point;
}

TEST_P(TapsOf, KnowWhoseTheRowsOfAPassAre) {
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    SCOPED_TRACE(to_string(numerics));
    model_->set_numerics(numerics);
    // Of each text and position, the residual that `run` has there.
    const auto want = value("blocks.1.hook_resid_post");
    std::map<std::pair<int64_t, int64_t>, at::Tensor> got;
    const auto handle = model_->add_taps(
        {{"blocks.1.hook_resid_post", [&](const at::Tensor& value, const TapSite& site) {
            for (size_t row = 0; row < site.texts.size(); ++row) {
              for (int64_t i = 0; i < value.size(1); ++i) {
                const auto inserted =
                    got.emplace(std::pair(site.texts[row], site.positions[row] + i),
                                value[static_cast<int64_t>(row)][i].clone());
                EXPECT_TRUE(inserted.second);
              }
            }
            return std::nullopt;
          }}});
    ModelRunner runner(model_, {.max_batch = kRows, .chunk = 4});
    std::vector<Sequence> sequences;
    for (int64_t i = 0; i < kRows; ++i) sequences.push_back(runner.make_sequence());
    const auto token = [&](int64_t text, int64_t at) { return ids_[text][at].item<int64_t>(); };
    const std::vector<std::vector<int64_t>> prompts{{token(0, 0)},
                                                    {token(1, 0), token(1, 1), token(1, 2)}};
    runner.prompt(
        std::vector<ModelRunner::Feed>{{&sequences[0], prompts[0]}, {&sequences[1], prompts[1]}});
    for (int64_t step = 0; step < 4; ++step) {
      runner.decode(std::vector<ModelRunner::Next>{{&sequences[1], token(1, 3 + step)},
                                                   {&sequences[0], token(0, 1 + step)}});
    }
    model_->remove_taps(handle);
    EXPECT_EQ(got.size(), 5U + 7U);
    for (const auto& [place, residual] : got) {
      EXPECT_TRUE(near_to(residual, want[place.first][place.second], 1e-5))
          << "text " << place.first << ", position " << place.second;
    }
  }
}

// The likeliest continuation, computed from the start for each token.
TokenRows continued(GemmaForCausalLM model, const at::Tensor& ids, int64_t count) {
  auto all = ids;
  for (int64_t i = 0; i < count; ++i) {
    const auto next = model->run(all).select(1, -1).argmax(-1, /*keepdim=*/true);
    all = at::cat({all, next}, 1);
  }
  TokenRows rows;
  for (int64_t row = 0; row < ids.size(0); ++row) {
    const auto own = all[row].narrow(0, ids.size(1), count).contiguous();
    rows.emplace_back(own.const_data_ptr<int64_t>(), own.const_data_ptr<int64_t>() + count);
  }
  return rows;
}

TEST_P(TapsOf, SteerWhatIsGenerated) {
  auto config = config_;
  config.tokenizer = testing::data_path("tiny.model").string();
  GemmaForCausalLM model(config);
  randomize(*model, /*seed=*/1);
  const auto direction = random_tensor({config.hidden_size}, /*seed=*/3) * 4;
  const Tap steering{
      "blocks.1.hook_resid_post",
      [direction](const at::Tensor& value, const TapSite&) { return value + direction; }};
  TokenRows prompts;
  for (int64_t row = 0; row < kRows; ++row) {
    const auto own = ids_[row].contiguous();
    prompts.emplace_back(own.const_data_ptr<int64_t>(), own.const_data_ptr<int64_t>() + kLength);
  }
  const auto plain = continued(model, ids_, 8);
  const auto handle = model->add_taps({steering});
  const auto want = continued(model, ids_, 8);
  EXPECT_NE(want, plain);
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    model->set_numerics(numerics);
    auto got = model->generate_ids(prompts, at::kCPU, 8, std::nullopt, 1.0, 1, {});
    for (size_t row = 0; row < got.size(); ++row) {
      // A text ends before its eos.
      EXPECT_TRUE(std::equal(got[row].begin(), got[row].end(), want[row].begin()))
          << to_string(numerics) << ", row " << row;
    }
  }
  model->remove_taps(handle);
}

TEST_P(TapsOf, RefuseNamesThatNoPointHas) {
  const auto message = message_of<std::invalid_argument>(
      [&] { model_->add_taps({{"blocks.0.hook_resid_pre", {}}, {"blocks.99.*", {}}}); });
  EXPECT_TRUE(contains(message, "GemmaForCausalLM has no point 'blocks.99.*'"));
  EXPECT_FALSE(model_->model->layers->at<DecoderLayerImpl>(0).is_tapped());
}

TEST_P(TapsOf, RefuseAReplacementOfAnotherShape) {
  const auto message = message_of<std::invalid_argument>(
      [&] { run({}, {{"blocks.0.hook_resid_pre", replacing_by(at::zeros({3}))}}); });
  EXPECT_TRUE(contains(message,
                       "tap of blocks.0.hook_resid_pre: returned [3], but the value is "
                       "[2, 9, 33]"));
}

TEST_P(TapsOf, RefuseLayersThatAreNone) {
  EXPECT_THROW(model_->run(ids_, {.end = config_.num_hidden_layers + 1}), std::invalid_argument);
  EXPECT_THROW(model_->run(noise(), {.first = 2, .end = 1}), std::invalid_argument);
  EXPECT_THROW(model_->run(random_ids(1, 65)), std::invalid_argument);
}

}  // namespace
}  // namespace gemma
