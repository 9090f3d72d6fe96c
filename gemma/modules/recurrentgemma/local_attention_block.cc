#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/modules/recurrentgemma/attention_cache.h>
#include <gemma/modules/recurrentgemma/local_attention_block.h>
#include <gemma/modules/recurrentgemma/positions.h>
#include <gemma/modules/tapped_ops.h>
#include <gemma/ops/ops.h>
#include <gemma/ops/rotary.h>

namespace gemma::recurrentgemma {
namespace {

// x [..., D], the second and the third quarter of each head exchanged: the pairs (i, i + D / 4) of
// its first half become (i, i + D / 2). Twice is x again.
at::Tensor pairs_apart(const at::Tensor& x) {
  return x.unflatten(-1, {2, 2, -1}).transpose(-3, -2).reshape(x.sizes());
}

}  // namespace

LocalAttentionBlockImpl::LocalAttentionBlockImpl(int64_t width,
                                                 int64_t num_heads,
                                                 int64_t window_size)
    : num_heads_(num_heads), window_size_(window_size) {
  if (num_heads < 1 || width % num_heads != 0) {
    throw std::invalid_argument(fmt::format(
        "LocalAttentionBlock: num_heads is {}, but must divide the width, {}", num_heads, width));
  }
  const auto head_dim = width / num_heads;
  proj_q = register_module("proj_q", Linear(width, width, /*quant=*/false));
  proj_k = register_module("proj_k", Linear(width, head_dim, /*quant=*/false));
  proj_v = register_module("proj_v", Linear(width, head_dim, /*quant=*/false));
  proj_final = register_module("proj_final", BiasedLinear(width, width));
}

std::pair<torch::Tensor, std::optional<AttentionBlockCache>> LocalAttentionBlockImpl::forward(
    const torch::Tensor& x,
    const torch::Tensor& segment_pos,
    const std::optional<AttentionBlockCache>& cache,
    bool return_cache) {
  check_positions("LocalAttentionBlock", x, segment_pos);
  const auto heads = project(x, Pass::kAny);
  const auto q = tapped("hook_rot_q", ops().rotate_first_half(heads.q, segment_pos));
  const auto k = tapped("hook_rot_k", ops().rotate_first_half(heads.k, segment_pos));
  const auto& v = heads.v;

  at::Tensor encoded;
  std::optional<AttentionBlockCache> next;
  if (cache) {
    // Before the cache is written to.
    const auto seen = cache_mask(x.size(1), cache->num_tokens, window_size_);
    encoded = attend(q, at::cat({cache->keys, k}, /*dim=*/1),
                     at::cat({cache->values, v}, /*dim=*/1), seen);
    if (return_cache) next = updated_cache(k, v, segment_pos, *cache);
  } else {
    encoded = attend(q, k, v, forward_pass_mask(segment_pos, window_size_));
    if (return_cache) next = cache_from_prompt(k, v, segment_pos, window_size_);
  }
  return {finish(encoded, Pass::kAny), std::move(next)};
}

torch::Tensor LocalAttentionBlockImpl::forward_step(const torch::Tensor& x,
                                                    const StepInputs& inputs) {
  return finish(attend_step(project(x, inputs.pass), inputs), inputs.pass);
}

LocalAttentionBlockImpl::Heads LocalAttentionBlockImpl::project(const torch::Tensor& x, Pass pass) {
  const auto in = tapped("hook_in", x);
  const auto heads = [this](std::string_view point, const at::Tensor& projected) {
    return tapped(point, projected.unflatten(-1, {-1, head_dim()}));
  };
  return {heads("hook_q", proj_q(in, pass)), heads("hook_k", proj_k(in, pass)),
          heads("hook_v", proj_v(in, pass))};
}

torch::Tensor LocalAttentionBlockImpl::attend(const torch::Tensor& q,
                                              const torch::Tensor& k,
                                              const torch::Tensor& v,
                                              const torch::Tensor& seen) const {
  if (!is_tapped_inside()) return ops().attend_seen(q, k, v, seen);
  const TappedOps stepwise(
      [this](Inner which, const at::Tensor& value) { return tapped_inner(which, value); });
  return stepwise.attend_seen(q, k, v, seen);
}

torch::Tensor LocalAttentionBlockImpl::attend_step(const Heads& heads,
                                                   const StepInputs& inputs) const {
  const auto& state = std::get<AttentionState>(inputs.state);
  // Queries and keys are permuted after they were projected, and not the rows of the weights
  // before, so that these stay as the file has them.
  const auto qkv =
      at::cat({pairs_apart(heads.q), pairs_apart(heads.k), heads.v}, /*dim=*/-2).flatten(-2);
  const auto attend_by = [&](const Ops& by) {
    return by.attend_segments(qkv, {num_heads_, 1, head_dim()}, {},
                              {std::pow(static_cast<double>(head_dim()), -0.5), std::nullopt},
                              window_size_ + 1, inputs.freqs_cis, inputs.pass, inputs.segments,
                              state.cache, state.tables);
  };
  if (!is_tapped_inside()) return attend_by(ops());
  const auto inner = [this](Inner which, const at::Tensor& value) {
    const bool is_rotated = which == Inner::kRotatedQuery || which == Inner::kRotatedKey;
    if (!is_rotated) return tapped_inner(which, value);
    return pairs_apart(tapped_inner(which, pairs_apart(value)));
  };
  return attend_by(
      TappedAttentionOps(inner, gemma::RMSNorm(nullptr), gemma::RMSNorm(nullptr), passes()));
}

torch::Tensor LocalAttentionBlockImpl::tapped_inner(Inner which, const torch::Tensor& value) const {
  switch (which) {
    case Inner::kRotatedQuery:
      return tapped("hook_rot_q", value);
    case Inner::kRotatedKey:
      return tapped("hook_rot_k", value);
    case Inner::kScores:
      return tapped("hook_attn_scores", value);
    case Inner::kPattern:
      return tapped("hook_pattern", value);
    default:
      return value;
  }
}

torch::Tensor LocalAttentionBlockImpl::finish(const torch::Tensor& encoded, Pass pass) {
  const auto z = tapped("hook_z", encoded.unflatten(-1, {num_heads_, -1})).flatten(-2);
  return tapped("hook_out", proj_final(z, pass));
}

std::vector<TapPoint> LocalAttentionBlockImpl::tap_points() const {
  return {{"hook_in"},
          {"hook_q"},
          {"hook_k"},
          {"hook_v"},
          {"hook_rot_q", /*is_inner=*/true},
          {"hook_rot_k", /*is_inner=*/true},
          {"hook_attn_scores", /*is_inner=*/true},
          {"hook_pattern", /*is_inner=*/true},
          {"hook_z"},
          {"hook_out"}};
}

AttentionBlockCache LocalAttentionBlockImpl::init_cache(int64_t batch_size,
                                                        int64_t window_size,
                                                        int64_t heads_dim,
                                                        torch::Dtype dtype,
                                                        torch::Device device) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  const auto zeros = [&] { return at::zeros({batch_size, window_size, 1, heads_dim}, options); };
  return {zeros(), zeros(), at::zeros({batch_size}, options.dtype(at::kInt))};
}

torch::Tensor step_freqs_cis(const torch::Tensor& positions, int64_t head_dim) {
  const auto frequencies = rope_frequencies(head_dim / 2).to(positions.device());
  const auto angles = positions.unsqueeze(-1) * frequencies;  // [T, D / 4]
  const auto all = at::constant_pad_nd(angles, {0, angles.size(1)});
  return at::polar(at::ones_like(all), all);
}

}  // namespace gemma::recurrentgemma
