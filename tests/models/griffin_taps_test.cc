#include <cmath>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/engine/model_runner.h>
#include <gemma/models/griffin.h>

namespace gemma::recurrentgemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::near_to;
using testing::tensors_close;
using testing::tensors_equal;

constexpr auto kR = TemporalBlockType::kRecurrent;
constexpr auto kA = TemporalBlockType::kAttention;
constexpr int64_t kRows = 2;
constexpr int64_t kLength = 9;  // Past the window.

using Cache = std::map<std::string, at::Tensor>;

GriffinConfig small_config() {
  return {.vocab_size = 37,
          .width = 48,
          .mlp_expanded_width = 20,
          .num_heads = 2,
          .block_types = {kR, kA, kR},
          .embeddings_scale_by_sqrt_dim = true,
          .attention_window_size = 4,
          .logits_soft_cap = 3.3,
          .lru_width = 36};
}

at::Tensor small_ids() {
  return testing::random_ids(kRows, kLength).remainder(small_config().vocab_size);
}

// A model whose recurrences remember some tokens.
Griffin make_model() {
  Griffin model(small_config());
  testing::randomize(*model, /*seed=*/3);
  for (const auto& item : model->named_parameters()) {
    if (item.key().ends_with("a_param")) item.value().sub_(4);
  }
  return model;
}

// Numbers of a row by different factors: a norm takes one factor back.
// Of scores and patterns all by one: an engine has other keys in a row.
at::Tensor scaled(const at::Tensor& value, std::string_view point) {
  if (point.ends_with("hook_attn_scores") || point.ends_with("hook_pattern")) return value * 0.5;
  return value * at::linspace(0.25, 1.5, value.size(-1)).to(value.scalar_type());
}

class GriffinTaps : public ::testing::Test {
 protected:
  at::Tensor forward() {
    return *model_->forward(ids_, at::arange(kLength).expand({kRows, kLength})).first;
  }

  // The capped logits of all tokens, on an engine.
  at::Tensor on_engine() {
    ModelRunner runner(model_, {.max_batch = kRows, .chunk = 4});
    std::vector<at::Tensor> rows;
    for (int64_t row = 0; row < kRows; ++row) {
      auto sequence = runner.make_sequence();
      const auto own = ids_[row].contiguous();
      const auto hidden =
          runner.extend(sequence, {own.const_data_ptr<int64_t>(), static_cast<size_t>(kLength)});
      rows.push_back(at::tanh(model_->logits(hidden, /*buffer=*/{}) / 3.3) * 3.3);
    }
    return at::stack(rows);
  }

  // The values of the points with the taps there.
  Cache run(const std::vector<std::string>& points, std::vector<Tap> taps = {}) {
    Cache cache;
    for (const auto& point : points) {
      taps.push_back({point, [&cache](const at::Tensor& value, const TapSite& site) {
                        cache[std::string(site.name)] = value.clone();
                        return std::nullopt;
                      }});
    }
    const auto handle = model_->add_taps(taps);
    cache["logits"] = forward();
    model_->remove_taps(handle);
    return cache;
  }

  std::vector<std::string> points() {
    std::vector<std::string> names;
    for (const auto& point : model_->tap_names()) names.push_back(point.front());
    return names;
  }

  // The logits when values at a point are scaled; of ids there are other ones.
  template <typename Compute>
  at::Tensor scaled_at(const std::string& point, const Compute& compute) {
    const auto handle = model_->add_taps({{point, [](const at::Tensor& value, const TapSite& site) {
                                             return value.is_floating_point()
                                                        ? scaled(value, site.name)
                                                        : value / 2;
                                           }}});
    auto logits = compute();
    model_->remove_taps(handle);
    return logits;
  }

  Griffin model_ = make_model();
  at::Tensor ids_ = small_ids();
};

TEST_F(GriffinTaps, ThatOnlyLookLeaveTheBits) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const DefaultDtypeGuard guard(dtype);
    model_ = make_model();
    const auto want = forward(), want_on_engine = on_engine();
    int64_t calls = 0;
    const auto handle = model_->add_taps({{"*", [&](const at::Tensor&, const TapSite&) {
                                             ++calls;
                                             return std::nullopt;
                                           }}});
    EXPECT_TRUE(tensors_equal(forward(), want)) << dtype;
    EXPECT_EQ(calls, std::ssize(points()));
    EXPECT_TRUE(tensors_equal(on_engine(), want_on_engine)) << dtype;
    model_->remove_taps(handle);
  }
}

TEST_F(GriffinTaps, TakeEffectAtAnyPoint) {
  const auto plain = forward();
  for (const auto& point : points()) {
    const auto changed = scaled_at(point, [this] { return forward(); });
    EXPECT_FALSE(at::equal(changed, plain)) << point;
  }
  EXPECT_TRUE(tensors_equal(forward(), plain));
}

TEST_F(GriffinTaps, MayWriteToTheValue) {
  for (const auto& point : points()) {
    if (point == "embedder.hook_in") continue;  // Whole numbers.
    const auto returned = scaled_at(point, [this] { return forward(); });
    const auto written = run({}, {{point, [](const at::Tensor& value, const TapSite& site) {
                                     value.copy_(scaled(value, site.name));
                                     return std::nullopt;
                                   }}});
    // Another layout in memory may round otherwise.
    EXPECT_TRUE(near_to(written.at("logits"), returned)) << point;
  }
}

TEST_F(GriffinTaps, DoOnAnEngineWhatTheyDoInTheReferencesForward) {
  const auto compute = [this] { return on_engine(); };
  std::map<std::string, at::Tensor> want;
  for (const auto& point : points()) {
    if (point == "hook_logits") continue;  // Of an engine, the caller caps them.
    want[point] = scaled_at(point, [this] { return forward(); });
    EXPECT_TRUE(near_to(scaled_at(point, compute), want.at(point), 1e-4)) << point;
  }
  model_->set_numerics(Numerics::kFast);
  int64_t served = 0;
  for (const auto& [point, logits] : want) {
    try {
      EXPECT_TRUE(near_to(scaled_at(point, compute), logits, 1e-4)) << point << ", fast";
      ++served;
    } catch (const std::invalid_argument& error) {
      EXPECT_TRUE(contains(error.what(), "use set_numerics(\"exact\")")) << point;
    }
  }
  EXPECT_GT(served, std::ssize(want) / 2);
}

TEST_F(GriffinTaps, SeeValuesOfTheDocumentedShapes) {
  const int64_t B = kRows, T = kLength, E = 48, F = 20, H = 2, D = 24, R = 36;
  const std::map<std::string, std::vector<int64_t>> want{
      {"embedder.hook_in", {B, T}},
      {"embedder.hook_out", {B, T, E}},
      {"blocks.0.hook_resid_mid", {B, T, E}},
      {"blocks.0.temporal_pre_norm.hook_scale", {B, T, 1}},
      {"blocks.0.recurrent_block.linear_y.hook_out", {B, T, R}},
      {"blocks.0.recurrent_block.conv_1d.hook_out", {B, T, R}},
      {"blocks.0.recurrent_block.rg_lru.input_gate.hook_out", {B, T, R}},
      {"blocks.0.recurrent_block.rg_lru.hook_a", {B, T, R}},
      {"blocks.0.recurrent_block.rg_lru.hook_out", {B, T, R}},
      {"blocks.0.recurrent_block.linear_out.hook_in", {B, T, R}},
      {"blocks.1.attention_block.hook_q", {B, T, H, D}},
      {"blocks.1.attention_block.hook_k", {B, T, 1, D}},
      {"blocks.1.attention_block.hook_rot_k", {B, T, 1, D}},
      {"blocks.1.attention_block.hook_pattern", {B, H, T, T}},
      {"blocks.1.attention_block.hook_z", {B, T, H, D}},
      {"blocks.2.mlp_block.hook_pre", {B, T, F}},
      {"blocks.2.mlp_block.ffw_down.hook_in", {B, T, F}},
      {"final_norm.hook_out", {B, T, E}},
      {"hook_logits", {B, T, 37}},
  };
  std::vector<std::string> names;
  for (const auto& [point, _] : want) names.push_back(point);
  const auto got = run(names);
  for (const auto& [point, sizes] : want) EXPECT_EQ(got.at(point).sizes(), sizes) << point;
}

TEST_F(GriffinTaps, SeeTheRecurrence) {
  const std::string block = "blocks.2.", part = block + "recurrent_block.";
  const auto seen =
      run({block + "hook_in", part + "hook_in", part + "hook_out", block + "hook_resid_mid",
           block + "mlp_block.hook_out", block + "hook_out", part + "conv_1d.hook_out",
           part + "rg_lru.hook_in", part + "rg_lru.input_gate.hook_out",
           part + "rg_lru.a_gate.hook_out", part + "rg_lru.hook_gate_x",
           part + "rg_lru.hook_gate_a", part + "rg_lru.hook_a", part + "rg_lru.hook_normalized_x",
           part + "rg_lru.hook_out", part + "linear_y.hook_out", part + "linear_out.hook_in"});
  const auto at = [&](const std::string& point) { return seen.at(part + point); };
  EXPECT_TRUE(tensors_equal(seen.at(block + "hook_in") + at("hook_out"),
                            seen.at(block + "hook_resid_mid")));
  EXPECT_TRUE(
      tensors_equal(seen.at(block + "hook_resid_mid") + seen.at(block + "mlp_block.hook_out"),
                    seen.at(block + "hook_out")));
  EXPECT_TRUE(tensors_equal(at("conv_1d.hook_out"), at("rg_lru.hook_in")));
  const auto gate_x = at("rg_lru.hook_gate_x"), gate_a = at("rg_lru.hook_gate_a");
  EXPECT_TRUE(tensors_equal(gate_x, at("rg_lru.input_gate.hook_out").sigmoid()));
  EXPECT_TRUE(tensors_equal(gate_a, at("rg_lru.a_gate.hook_out").sigmoid()));
  const auto& lru = *model_->blocks->at<ResidualBlockImpl>(2).recurrent_block->rg_lru;
  const auto a = at("rg_lru.hook_a"), x = at("rg_lru.hook_normalized_x");
  EXPECT_TRUE(tensors_close(a, (gate_a * -8 * at::softplus(lru.a_param)).exp()));
  const auto gamma = (1 - a.pow(2)).sqrt();
  gamma.select(1, 0).fill_(1);  // Of a text's first token.
  EXPECT_TRUE(tensors_close(x, at("rg_lru.hook_in") * gate_x * gamma));
  auto h = at::zeros_like(x.select(1, 0));
  for (int64_t t = 0; t < kLength; ++t) {
    h = a.select(1, t) * h + x.select(1, t);
    EXPECT_TRUE(tensors_close(at("rg_lru.hook_out").select(1, t), h)) << t;
  }
  EXPECT_TRUE(tensors_close(at("linear_out.hook_in"),
                            at("rg_lru.hook_out") * at::gelu(at("linear_y.hook_out"), "tanh")));
}

TEST_F(GriffinTaps, SeeTheAttention) {
  const std::string part = "blocks.1.attention_block.";
  const auto seen = run({part + "hook_rot_q", part + "hook_rot_k", part + "hook_v",
                         part + "hook_attn_scores", part + "hook_pattern", part + "hook_z",
                         part + "proj_final.hook_in", part + "proj_q.hook_out", part + "hook_q"});
  const auto at = [&](const std::string& point) { return seen.at(part + point); };
  EXPECT_TRUE(tensors_equal(at("hook_q").flatten(2), at("proj_q.hook_out")));
  const auto scores =
      at::einsum("btnd,bsmd->bnts", {at("hook_rot_q"), at("hook_rot_k")}) / std::sqrt(24.0);
  const auto distance = at::arange(kLength).unsqueeze(1) - at::arange(kLength);
  const auto is_seen = (distance >= 0).logical_and(distance <= 4).expand_as(scores);
  EXPECT_TRUE(tensors_equal(at("hook_attn_scores") > -1e30, is_seen));
  EXPECT_TRUE(
      tensors_close(at("hook_attn_scores").masked_select(is_seen), scores.masked_select(is_seen)));
  EXPECT_TRUE(tensors_close(at("hook_pattern"), at("hook_attn_scores").softmax(-1)));
  EXPECT_TRUE(tensors_close(at("hook_z"),
                            at::einsum("bnts,bsmd->btnd", {at("hook_pattern"), at("hook_v")})));
  EXPECT_TRUE(tensors_equal(at("hook_z").flatten(2), at("proj_final.hook_in")));
}

TEST_F(GriffinTaps, SayWhereTheRowsOfPaddedTextsBegin) {
  std::vector<int64_t> texts, positions;
  const auto handle =
      model_->add_taps({{"blocks.0.hook_in", [&](const at::Tensor&, const TapSite& site) {
                           texts.assign(site.texts.begin(), site.texts.end());
                           positions.assign(site.positions.begin(), site.positions.end());
                           return std::nullopt;
                         }}});
  const auto padding = at::tensor(std::vector<int64_t>{3, 0}).unsqueeze(1);
  model_->forward(ids_, (at::arange(kLength) - padding).clamp(/*min=*/-1));
  model_->remove_taps(handle);
  EXPECT_EQ(texts, (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(positions, (std::vector<int64_t>{-3, 0}));
}

TEST_F(GriffinTaps, KnowWhoseTheRowsOfAPassAre) {
  for (const auto numerics : {Numerics::kExact, Numerics::kFast}) {
    SCOPED_TRACE(to_string(numerics));
    model_->set_numerics(Numerics::kExact);
    std::vector<std::string> watched{"blocks.1.hook_out", "blocks.1.attention_block.hook_z",
                                     "blocks.2.recurrent_block.conv_1d.hook_in",
                                     "blocks.2.recurrent_block.rg_lru.hook_out",
                                     "blocks.2.mlp_block.hook_pre"};
    if (numerics == Numerics::kExact) {
      watched.insert(watched.end(), {"blocks.1.attention_block.hook_rot_q",
                                     "blocks.2.recurrent_block.rg_lru.hook_a",
                                     "blocks.2.recurrent_block.rg_lru.input_gate.hook_out"});
    }
    const auto want = run(watched);
    model_->set_numerics(numerics);
    std::map<std::pair<int64_t, int64_t>, int64_t> times;
    std::vector<Tap> taps;
    for (const auto& point : watched) {
      taps.push_back({point, [&](const at::Tensor& value, const TapSite& site) {
                        for (size_t row = 0; row < site.texts.size(); ++row) {
                          for (int64_t i = 0; i < value.size(1); ++i) {
                            const auto text = site.texts[row], place = site.positions[row] + i;
                            ++times[{text, place}];
                            EXPECT_TRUE(near_to(value[static_cast<int64_t>(row)][i],
                                                want.at(point)[text][place], 1e-5))
                                << point << ", text " << text << ", position " << place;
                          }
                        }
                        return std::nullopt;
                      }});
    }
    const auto handle = model_->add_taps(taps);
    ModelRunner runner(model_, {.max_batch = kRows, .chunk = 4});
    std::vector<Sequence> sequences;
    for (int64_t i = 0; i < kRows; ++i) sequences.push_back(runner.make_sequence());
    const auto token = [&](int64_t text, int64_t place) {
      return ids_[text][place].item<int64_t>();
    };
    const std::vector<std::vector<int64_t>> prompts{{token(0, 0)},
                                                    {token(1, 0), token(1, 1), token(1, 2)}};
    runner.prompt(
        std::vector<ModelRunner::Feed>{{&sequences[0], prompts[0]}, {&sequences[1], prompts[1]}});
    for (int64_t step = 0; step < 4; ++step) {
      runner.decode(std::vector<ModelRunner::Next>{{&sequences[1], token(1, 3 + step)},
                                                   {&sequences[0], token(0, 1 + step)}});
    }
    model_->remove_taps(handle);
    EXPECT_EQ(times.size(), 5U + 7U);
    for (const auto& [place, count] : times) EXPECT_EQ(count, std::ssize(watched));
  }
}

TEST_F(GriffinTaps, OfOperationsThatFastNumericsFuseAreRefused) {
  model_->set_numerics(Numerics::kFast);
  const auto look = [](const at::Tensor&, const TapSite&) { return std::nullopt; };
  for (const auto* const point :
       {"blocks.0.temporal_pre_norm.hook_scale", "blocks.0.recurrent_block.conv_1d.hook_out",
        "blocks.0.recurrent_block.rg_lru.hook_a", "blocks.0.recurrent_block.rg_lru.a_gate.hook_out",
        "blocks.1.attention_block.hook_pattern"}) {
    const auto message =
        message_of<std::invalid_argument>([&] { model_->add_taps({{point, look}}); });
    EXPECT_TRUE(contains(message, "use set_numerics(\"exact\")")) << point;
  }
  EXPECT_FALSE(model_->blocks->at<ResidualBlockImpl>(0).temporal_pre_norm->is_tapped());
}

}  // namespace
}  // namespace gemma::recurrentgemma
