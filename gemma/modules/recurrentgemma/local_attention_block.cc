#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/modules/recurrentgemma/attention_cache.h>
#include <gemma/modules/recurrentgemma/local_attention_block.h>
#include <gemma/modules/recurrentgemma/positions.h>
#include <gemma/ops/ops.h>

namespace gemma::recurrentgemma {

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

AttentionBlockCache LocalAttentionBlockImpl::init_cache(int64_t batch_size,
                                                        int64_t window_size,
                                                        int64_t heads_dim,
                                                        torch::Dtype dtype,
                                                        torch::Device device) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  const auto zeros = [&] { return at::zeros({batch_size, window_size, 1, heads_dim}, options); };
  return {zeros(), zeros(), at::zeros({batch_size}, options.dtype(at::kInt))};
}

}  // namespace gemma::recurrentgemma
