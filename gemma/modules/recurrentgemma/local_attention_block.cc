#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/modules/recurrentgemma/attention_cache.h>
#include <gemma/modules/recurrentgemma/local_attention_block.h>
#include <gemma/modules/recurrentgemma/positions.h>
#include <gemma/ops/ops.h>
#include <gemma/ops/rotary.h>

namespace gemma::recurrentgemma {
namespace {

// x [T, heads * D], the second and the third quarter of each head exchanged: the pairs (i, i + D /
// 4) of its first half become (i, i + D / 2).
at::Tensor pairs_apart(const at::Tensor& x, int64_t heads) {
  return x.view({x.size(0), heads, 2, 2, -1}).transpose(2, 3).reshape(x.sizes());
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
  const auto heads = [&](const at::Tensor& projected, int64_t count) {
    return projected.reshape({x.size(0), x.size(1), count, head_dim()});
  };
  const auto q = ops().rotate_first_half(heads(proj_q(x), num_heads_), segment_pos);
  const auto k = ops().rotate_first_half(heads(proj_k(x), 1), segment_pos);
  const auto v = heads(proj_v(x), 1);

  at::Tensor encoded;
  std::optional<AttentionBlockCache> next;
  if (cache) {
    // Before the cache is written to.
    const auto seen = cache_mask(x.size(1), cache->num_tokens, window_size_);
    encoded = ops().attend_seen(q, at::cat({cache->keys, k}, /*dim=*/1),
                                at::cat({cache->values, v}, /*dim=*/1), seen);
    if (return_cache) next = updated_cache(k, v, segment_pos, *cache);
  } else {
    encoded = ops().attend_seen(q, k, v, forward_pass_mask(segment_pos, window_size_));
    if (return_cache) next = cache_from_prompt(k, v, segment_pos, window_size_);
  }
  return {proj_final(encoded), std::move(next)};
}

torch::Tensor LocalAttentionBlockImpl::forward_step(const torch::Tensor& x,
                                                    const StepInputs& inputs) {
  const auto& [cache, tables] = std::get<AttentionState>(inputs.state);
  // Queries and keys are permuted after they were projected, and not the rows of the weights
  // before, so that these stay as the file has them.
  const auto qkv = at::cat({pairs_apart(proj_q(x, inputs.pass), num_heads_),
                            pairs_apart(proj_k(x, inputs.pass), 1), proj_v(x, inputs.pass)},
                           /*dim=*/-1);
  const auto encoded = ops().attend_segments(
      qkv, {num_heads_, 1, head_dim()}, {},
      {std::pow(static_cast<double>(head_dim()), -0.5), std::nullopt}, window_size_ + 1,
      inputs.freqs_cis, inputs.pass, inputs.segments, cache, tables);
  return proj_final(encoded, inputs.pass);
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
