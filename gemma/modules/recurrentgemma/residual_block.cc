#include <c10/util/Exception.h>

#include <gemma/modules/recurrentgemma/residual_block.h>

namespace gemma::recurrentgemma {
namespace {

// Runs the block of a layer with the cache of its type.
template <typename Cache, typename Block>
std::pair<torch::Tensor, std::optional<ResidualBlockCache>> run(
    Block& block,
    const torch::Tensor& x,
    const torch::Tensor& segment_pos,
    const std::optional<ResidualBlockCache>& cache,
    bool return_cache) {
  TORCH_CHECK_VALUE(!cache || std::holds_alternative<Cache>(*cache),
                    "ResidualBlock: the cache is that of another type of block");
  const auto own = cache ? std::optional(std::get<Cache>(*cache)) : std::nullopt;
  return block->forward(x, segment_pos, own, return_cache);
}

}  // namespace

ResidualBlockImpl::ResidualBlockImpl(int64_t width,
                                     int64_t mlp_expanded_width,
                                     int64_t num_heads,
                                     int64_t attention_window_size,
                                     TemporalBlockType temporal_block_type,
                                     std::optional<int64_t> lru_width,
                                     int64_t conv1d_temporal_width)
    : type_(temporal_block_type) {
  temporal_pre_norm = register_module("temporal_pre_norm", RMSNorm(width));
  if (type_ == TemporalBlockType::kRecurrent) {
    recurrent_block = register_module(
        "recurrent_block", RecurrentBlock(width, num_heads, lru_width, conv1d_temporal_width));
  } else {
    attention_block = register_module("attention_block",
                                      LocalAttentionBlock(width, num_heads, attention_window_size));
  }
  channel_pre_norm = register_module("channel_pre_norm", RMSNorm(width));
  mlp_block = register_module("mlp_block", MLPBlock(width, mlp_expanded_width));
}

std::pair<torch::Tensor, std::optional<ResidualBlockCache>> ResidualBlockImpl::mix(
    const torch::Tensor& x,
    const torch::Tensor& segment_pos,
    const std::optional<ResidualBlockCache>& cache,
    bool return_cache) {
  if (type_ == TemporalBlockType::kRecurrent) {
    return run<RecurrentBlockCache>(recurrent_block, x, segment_pos, cache, return_cache);
  }
  return run<AttentionBlockCache>(attention_block, x, segment_pos, cache, return_cache);
}

std::pair<torch::Tensor, std::optional<ResidualBlockCache>> ResidualBlockImpl::forward(
    const torch::Tensor& x,
    const torch::Tensor& segment_pos,
    const std::optional<ResidualBlockCache>& cache,
    bool return_cache) {
  const auto in = tapped("hook_in", x);
  auto [mixed, next] = mix(temporal_pre_norm(in), segment_pos, cache, return_cache);
  const auto residual = tapped("hook_resid_mid", mixed + in);
  const auto fed = mlp_block(channel_pre_norm(residual));
  return {tapped("hook_out", fed + residual), std::move(next)};
}

torch::Tensor ResidualBlockImpl::forward_step(const torch::Tensor& x, const StepInputs& inputs) {
  const auto in = tapped("hook_in", x);
  const auto normed = temporal_pre_norm(in);
  const auto mixed = type_ == TemporalBlockType::kRecurrent
                         ? recurrent_block->forward_step(normed, inputs)
                         : attention_block->forward_step(normed, inputs);
  const auto residual = tapped("hook_resid_mid", in + mixed);
  return tapped("hook_out", residual + mlp_block(channel_pre_norm(residual), inputs.pass));
}

std::vector<TapPoint> ResidualBlockImpl::tap_points() const {
  return {{"hook_in"}, {"hook_resid_mid"}, {"hook_out"}};
}

LayerKeeps ResidualBlockImpl::keeps() const {
  if (type_ == TemporalBlockType::kRecurrent) {
    return StateKept{recurrent_block->lru_width(), recurrent_block->conv1d_temporal_width() - 1};
  }
  return KeysKept{1, attention_block->head_dim(), attention_block->window_size() + 1};
}

ResidualBlockCache ResidualBlockImpl::init_cache(int64_t batch_size,
                                                 int64_t width,
                                                 int64_t num_heads,
                                                 int64_t attention_window_size,
                                                 TemporalBlockType temporal_block_type,
                                                 torch::Dtype dtype,
                                                 std::optional<int64_t> lru_width,
                                                 int64_t conv1d_temporal_width,
                                                 torch::Device device) {
  if (temporal_block_type == TemporalBlockType::kRecurrent) {
    return RecurrentBlockImpl::init_cache(batch_size, lru_width.value_or(width), dtype,
                                          conv1d_temporal_width, device);
  }
  return LocalAttentionBlockImpl::init_cache(batch_size, attention_window_size, width / num_heads,
                                             dtype, device);
}

}  // namespace gemma::recurrentgemma
