#include <stdexcept>
#include <string_view>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <fmt/format.h>

#include <gemma/modules/tapped_ops.h>
#include <gemma/ops/ops.h>
#include <gemma/vision/siglip_vision_model.h>

namespace gemma {
namespace {

void require_positive(std::string_view field, int64_t value) {
  if (value > 0) return;
  throw std::invalid_argument(
      fmt::format("SiglipVisionModelConfig: {} is {}, but must be at least 1", field, value));
}

void validate(const SiglipVisionModelConfig& config) {
  require_positive("num_hidden_layers", config.num_hidden_layers);
  require_positive("embedding_dim", config.embedding_dim);
  require_positive("input_channels", config.input_channels);
  require_positive("image_size", config.image_size);
  require_positive("conv2d_patch_size", config.conv2d_patch_size);
  require_positive("num_attention_heads", config.num_attention_heads);
  require_positive("head_dim", config.head_dim);
  require_positive("intermediate_size", config.intermediate_size);
}

// The reference's operations, with the two products of an MLP computed by their modules, which have
// points.
class TappedLinears : public Ops {
 public:
  TappedLinears(BiasedLinear up, BiasedLinear down) : up_(std::move(up)), down_(std::move(down)) {}

  at::Tensor biased_linear(const at::Tensor& x,
                           const BiasedWeight& linear,
                           Pass pass) const override {
    auto module = linear.weight.is_same(up_->weight) ? up_ : down_;
    return module(x, pass);
  }

 private:
  BiasedLinear up_, down_;
};

}  // namespace

SiglipAttentionImpl::SiglipAttentionImpl(int64_t dim, int64_t num_heads, int64_t head_dim)
    : num_heads_(num_heads) {
  k_proj = register_module("k_proj", BiasedLinear(dim, num_heads * head_dim));
  q_proj = register_module("q_proj", BiasedLinear(dim, num_heads * head_dim));
  v_proj = register_module("v_proj", BiasedLinear(dim, num_heads * head_dim));
  o_proj = register_module("o_proj", BiasedLinear(num_heads * head_dim, dim));
}

torch::Tensor SiglipAttentionImpl::forward(const torch::Tensor& x) {
  if (is_tapped()) return forward_tapped(x);
  return o_proj(ops().attend_all(q_proj(x), k_proj(x), v_proj(x), num_heads_));
}

torch::Tensor SiglipAttentionImpl::forward_tapped(const torch::Tensor& x) {
  const auto in = tapped("hook_in", x);
  const auto heads = [this](std::string_view point, const at::Tensor& projected) {
    return tapped(point, projected.unflatten(-1, {num_heads_, -1})).flatten(-2);
  };
  const auto z = attend_tapped(heads("hook_q", q_proj(in)), heads("hook_k", k_proj(in)),
                               heads("hook_v", v_proj(in)));
  return tapped("hook_out", o_proj(heads("hook_z", z)));
}

torch::Tensor SiglipAttentionImpl::attend_tapped(const torch::Tensor& q,
                                                 const torch::Tensor& k,
                                                 const torch::Tensor& v) const {
  if (!is_tapped_inside()) return ops().attend_all(q, k, v, num_heads_);
  const TappedOps stepwise([this](Inner which, const at::Tensor& value) {
    return tapped(which == Inner::kScores ? "hook_attn_scores" : "hook_pattern", value);
  });
  return stepwise.attend_all(q, k, v, num_heads_);
}

std::vector<TapPoint> SiglipAttentionImpl::tap_points() const {
  return {{"hook_in"},
          {"hook_q"},
          {"hook_k"},
          {"hook_v"},
          {"hook_attn_scores", /*is_inner=*/true},
          {"hook_pattern", /*is_inner=*/true},
          {"hook_z"},
          {"hook_out"}};
}

SiglipMLPImpl::SiglipMLPImpl(int64_t hidden_size, int64_t intermediate_size) {
  fc1 = register_module("fc1", BiasedLinear(hidden_size, intermediate_size));
  fc2 = register_module("fc2", BiasedLinear(intermediate_size, hidden_size));
}

torch::Tensor SiglipMLPImpl::forward(const torch::Tensor& x) {
  if (!is_tapped() && !fc1->is_tapped() && !fc2->is_tapped()) {
    return ops().gelu_mlp(x, fc1->view(), fc2->view());
  }
  return tapped("hook_out", compute(tapped_copy("hook_in", x)));
}

torch::Tensor SiglipMLPImpl::compute(const torch::Tensor& x) {
  const auto up = fc1->view(), down = fc2->view();
  if (!fc1->is_tapped() && !fc2->is_tapped()) return ops().gelu_mlp(x, up, down);
  return TappedLinears(fc1, fc2).gelu_mlp(x, up, down);
}

void SiglipMLPImpl::check_taps(Numerics numerics) const {
  Module::check_taps(numerics);
  if (numerics == Numerics::kExact || (!fc1->is_tapped() && !fc2->is_tapped())) return;
  throw std::invalid_argument(
      "taps: fast numerics do not compute fc1 and fc2 of SiglipMLP by themselves; use "
      "set_numerics(\"exact\"), or the points of the SiglipMLP");
}

SiglipEncoderBlockImpl::SiglipEncoderBlockImpl(const SiglipVisionModelConfig& config) {
  const auto dim = config.embedding_dim;
  self_attn = register_module("self_attn",
                              SiglipAttention(dim, config.num_attention_heads, config.head_dim));
  layer_norm1 = register_module("layer_norm1", LayerNorm(dim, config.layer_norm_eps));
  mlp = register_module("mlp", SiglipMLP(dim, config.intermediate_size));
  layer_norm2 = register_module("layer_norm2", LayerNorm(dim, config.layer_norm_eps));
}

torch::Tensor SiglipEncoderBlockImpl::forward(const torch::Tensor& x) {
  const auto in = tapped("hook_in", x);
  const auto attended = tapped("hook_resid_mid", self_attn(layer_norm1(in)) + in);
  return tapped("hook_out", mlp(layer_norm2(attended)) + attended);
}

std::vector<TapPoint> SiglipEncoderBlockImpl::tap_points() const {
  return {{"hook_in"}, {"hook_resid_mid"}, {"hook_out"}};
}

torch::Tensor AveragePool2DImpl::forward(const torch::Tensor& x) {
  return tapped("hook_out", ops().pool_patches(tapped_copy("hook_in", x)));
}

SiglipVisionModelImpl::SiglipVisionModelImpl(const SiglipVisionModelConfig& config, Pooling pooling)
    : config_(config) {
  validate(config);
  const auto width = config.image_size / config.conv2d_patch_size;
  patch_embedding = register_module(
      "patch_embedding", PatchEmbedding(config.input_channels, config.embedding_dim,
                                        config.conv2d_patch_size, config.embedding_use_bias));
  position_embedding = register_module(
      "position_embedding", Embedding(width * width, config.embedding_dim, /*quant=*/false));
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    encoder_blocks->push_back(SiglipEncoderBlock(config));
  }
  register_module("encoder_blocks", encoder_blocks);
  final_norm =
      register_module("final_norm", LayerNorm(config.embedding_dim, config.layer_norm_eps));
  if (pooling == Pooling::kYes) avg_pool = register_module("avg_pool", AveragePool2D());
}

torch::Tensor SiglipVisionModelImpl::forward(const torch::Tensor& pixel_values,
                                             const LayerCallback& on_block) {
  const torch::NoGradGuard no_grad;
  const auto size = config_.image_size;
  TORCH_CHECK_VALUE(pixel_values.dim() == 4 && pixel_values.size(1) == config_.input_channels &&
                        pixel_values.size(2) == size && pixel_values.size(3) == size,
                    "SiglipVisionModel: pixel_values must be [N, ", config_.input_channels, ", ",
                    size, ", ", size, "], got ", pixel_values.sizes());
  auto x = embed(tapped_copy("hook_in", pixel_values));
  const auto total = std::ssize(*encoder_blocks);
  for (int64_t done = 0; done < total;) {
    x = encoder_blocks[done]->as<SiglipEncoderBlockImpl>()->forward(x);
    ++done;
    if (on_block) on_block(done, total);
  }
  x = final_norm(x);
  return tapped("hook_out", avg_pool.is_empty() ? x : avg_pool(x));
}

// Pixels [N, C, height, width] -> patches with what says where they are, [N, P, E].
torch::Tensor SiglipVisionModelImpl::embed(const torch::Tensor& pixel_values) {
  const auto patches = patch_embedding(pixel_values);
  // The reference looks up position 0, 1, 2, …: the whole table.
  const auto& table = position_embedding->weight;
  if (!position_embedding->is_tapped()) return patches + table;
  const auto positions = at::arange(table.size(0), table.options().dtype(at::kLong));
  return patches + position_embedding(positions.repeat({patches.size(0), 1}));
}

}  // namespace gemma
