#include <cmath>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/vision/siglip_vision_model.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::near_to;
using testing::random_tensor;
using testing::tensors_close;
using testing::tensors_equal;

constexpr int64_t kImages = 2;

using Cache = std::map<std::string, at::Tensor>;

class SiglipTaps : public ::testing::Test {
 protected:
  SiglipTaps() { testing::randomize(*model_, /*seed=*/3); }

  at::Tensor forward() {
    return model_(pixels_.to(model_->position_embedding->weight.scalar_type()));
  }

  std::vector<std::string> points() {
    std::vector<std::string> names;
    for (const auto& point : model_->tap_names()) names.push_back(point.front());
    return names;
  }

  // The values of the points, and the model's.
  Cache run(const std::vector<std::string>& points) {
    Cache cache;
    std::vector<Tap> taps;
    for (const auto& point : points) {
      taps.push_back({point, [&cache](const at::Tensor& value, const TapSite& site) {
                        EXPECT_TRUE(site.texts.empty());
                        cache[std::string(site.name)] = value.clone();
                        return std::nullopt;
                      }});
    }
    const auto handle = model_->add_taps(taps);
    cache["out"] = forward();
    model_->remove_taps(handle);
    return cache;
  }

  at::Tensor with(const std::string& point, const TapFunction& function) {
    const auto handle = model_->add_taps({{point, function}});
    auto out = forward();
    model_->remove_taps(handle);
    return out;
  }

  SiglipVisionModel model_{SiglipVisionModelConfig{.num_hidden_layers = 2,
                                                   .embedding_dim = 20,
                                                   .image_size = 32,
                                                   .conv2d_patch_size = 4,
                                                   .num_attention_heads = 3,
                                                   .head_dim = 10,
                                                   .intermediate_size = 28}};
  at::Tensor pixels_ = random_tensor({kImages, 3, 32, 32}, /*seed=*/5).clamp(-1, 1);
};

// Numbers of a row by different factors: a norm takes one factor back. Of ids other ones.
at::Tensor scaled(const at::Tensor& value) {
  if (!value.is_floating_point()) return value.div(2, "floor");
  return value * at::linspace(0.25, 1.5, value.size(-1)).to(value.scalar_type());
}

TEST_F(SiglipTaps, ThatOnlyLookLeaveTheBits) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    model_->to(dtype);
    const auto want = forward();
    int64_t calls = 0;
    EXPECT_TRUE(tensors_equal(with("*",
                                   [&](const at::Tensor&, const TapSite&) {
                                     ++calls;
                                     return std::nullopt;
                                   }),
                              want))
        << dtype;
    EXPECT_EQ(calls, std::ssize(points()));
  }
}

TEST_F(SiglipTaps, TakeEffectAtAnyPointAndMayWriteToTheValue) {
  const auto plain = forward();
  for (const auto& point : points()) {
    const auto changed =
        with(point, [](const at::Tensor& value, const TapSite&) { return scaled(value); });
    EXPECT_FALSE(at::equal(changed, plain)) << point;
    const auto written = with(point, [](const at::Tensor& value, const TapSite&) {
      value.copy_(scaled(value));
      return std::nullopt;
    });
    EXPECT_TRUE(tensors_equal(written, changed)) << point;
  }
  EXPECT_TRUE(tensors_equal(forward(), plain));
}

TEST_F(SiglipTaps, SeeWhatTheFormulasSay) {
  const std::string block = "encoder_blocks.1.";
  const auto seen =
      run({"patch_embedding.hook_out", "position_embedding.hook_out", "encoder_blocks.0.hook_in",
           block + "hook_in", block + "self_attn.hook_q", block + "self_attn.hook_k",
           block + "self_attn.hook_v", block + "self_attn.hook_attn_scores",
           block + "self_attn.hook_pattern", block + "self_attn.hook_z",
           block + "self_attn.hook_out", block + "hook_resid_mid", block + "mlp.fc1.hook_out",
           block + "mlp.fc2.hook_in", block + "mlp.hook_out", block + "hook_out",
           "final_norm.hook_in", "avg_pool.hook_out", "hook_out"});
  const auto at = [&](const std::string& point) { return seen.at(block + point); };
  EXPECT_TRUE(
      tensors_equal(seen.at("patch_embedding.hook_out") + seen.at("position_embedding.hook_out"),
                    seen.at("encoder_blocks.0.hook_in")));
  EXPECT_EQ(at("self_attn.hook_q").sizes(), (std::vector<int64_t>{kImages, 64, 3, 10}));
  const auto scores =
      at::einsum("nphd,nshd->nhps", {at("self_attn.hook_q"), at("self_attn.hook_k")}) /
      std::sqrt(10.0);
  EXPECT_TRUE(tensors_close(at("self_attn.hook_attn_scores"), scores));
  EXPECT_TRUE(tensors_close(at("self_attn.hook_pattern"), scores.softmax(-1)));
  EXPECT_TRUE(tensors_close(
      at("self_attn.hook_z"),
      at::einsum("nhps,nshd->nphd", {at("self_attn.hook_pattern"), at("self_attn.hook_v")})));
  EXPECT_TRUE(tensors_equal(at("hook_in") + at("self_attn.hook_out"), at("hook_resid_mid")));
  EXPECT_TRUE(near_to(at("mlp.fc2.hook_in"), at::gelu(at("mlp.fc1.hook_out"), "tanh"), 1e-5));
  EXPECT_TRUE(tensors_equal(at("hook_resid_mid") + at("mlp.hook_out"), at("hook_out")));
  EXPECT_TRUE(tensors_equal(at("hook_out"), seen.at("final_norm.hook_in")));
  EXPECT_EQ(seen.at("avg_pool.hook_out").sizes(), (std::vector<int64_t>{kImages, 4, 20}));
  EXPECT_TRUE(tensors_equal(seen.at("hook_out"), seen.at("out")));
}

TEST_F(SiglipTaps, AgreeInFastNumericsOrAreRefused) {
  std::map<std::string, at::Tensor> want;
  const TapFunction change = [](const at::Tensor& value, const TapSite&) { return scaled(value); };
  for (const auto& point : points()) want[point] = with(point, change);
  model_->set_numerics(Numerics::kFast);
  std::vector<std::string> refused;
  for (const auto& [point, out] : want) {
    try {
      EXPECT_TRUE(near_to(with(point, change), out, 1e-5)) << point;
    } catch (const std::invalid_argument& error) {
      EXPECT_TRUE(contains(error.what(), "use set_numerics(\"exact\")")) << point;
      if (point.starts_with("encoder_blocks.0.")) refused.push_back(point);
    }
  }
  EXPECT_EQ(refused, (std::vector<std::string>{
                         "encoder_blocks.0.mlp.fc1.hook_in", "encoder_blocks.0.mlp.fc1.hook_out",
                         "encoder_blocks.0.mlp.fc2.hook_in", "encoder_blocks.0.mlp.fc2.hook_out",
                         "encoder_blocks.0.self_attn.hook_attn_scores",
                         "encoder_blocks.0.self_attn.hook_pattern"}));
}

}  // namespace
}  // namespace gemma
