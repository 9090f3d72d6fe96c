#include <algorithm>

#include <ATen/ATen.h>

#include <gemma/modules/recurrentgemma/attention_cache.h>

namespace gemma::recurrentgemma {
namespace {

// Key positions [B or 1, S] that are seen from query positions [B or 1, T], but for the question
// whose document they are of -> [B or 1, T, S].
at::Tensor in_window(const at::Tensor& queries, const at::Tensor& keys, int64_t window) {
  const auto q = queries.unsqueeze(-1), k = keys.unsqueeze(-2);
  return (q >= k).logical_and(q <= k + window);
}

// The last `window` of the tokens [B, T, 1, D], or all, in their places [B, window, 1, D].
at::Tensor in_places(const at::Tensor& x, const at::Tensor& num_tokens, int64_t window) {
  const auto length = std::min(window, x.size(1));
  const auto last = x.slice(1, x.size(1) - length);
  const auto places = at::arange(length, num_tokens.options().dtype(at::kLong)).unsqueeze(0);
  const auto from = (places - num_tokens.remainder(window).unsqueeze(1)).remainder(length);
  const auto indices = from.unsqueeze(-1).unsqueeze(-1).expand_as(last);
  return at::constant_pad_nd(last.gather(1, indices), {0, 0, 0, 0, 0, window - length});
}

}  // namespace

torch::Tensor forward_pass_mask(const torch::Tensor& segment_pos, int64_t window) {
  const auto segments = at::cumsum(segment_pos == 0, /*dim=*/-1);
  const auto positions =
      at::arange(segment_pos.size(1), segment_pos.options().dtype(at::kLong)).unsqueeze(0);
  const auto together = segments.unsqueeze(-1) == segments.unsqueeze(-2);
  return together.logical_and(in_window(positions, positions, window));
}

torch::Tensor cache_mask(int64_t length, const torch::Tensor& num_tokens, int64_t window) {
  const auto options = num_tokens.options().dtype(at::kLong);
  const auto count = num_tokens.to(at::kLong).unsqueeze(1);
  const auto queries = at::arange(length, options) + count;
  // A place holds the token of this round through the cache, or still that of the one before.
  const auto now = at::arange(window, options) + at::floor_divide(count, window) * window;
  const auto keys = at::cat({at::where(now < count, now, now - window), queries}, /*dim=*/-1);
  return (keys >= 0).unsqueeze(-2).logical_and(in_window(queries, keys, window));
}

AttentionBlockCache cache_from_prompt(const torch::Tensor& keys,
                                      const torch::Tensor& values,
                                      const torch::Tensor& segment_pos,
                                      int64_t window) {
  const auto num_tokens = segment_pos.select(1, segment_pos.size(1) - 1) + 1;
  return {in_places(keys, num_tokens, window), in_places(values, num_tokens, window), num_tokens};
}

AttentionBlockCache updated_cache(const torch::Tensor& keys,
                                  const torch::Tensor& values,
                                  const torch::Tensor& segment_pos,
                                  const AttentionBlockCache& cache) {
  const auto length = keys.size(1), window = cache.keys.size(1);
  if (std::min(window, length) == 1) {
    const auto places = cache.num_tokens.remainder(window).to(at::kLong);
    const auto rows = at::arange(keys.size(0), places.options());
    const c10::List<std::optional<at::Tensor>> where{rows, places};
    cache.keys.index_put_(where, keys.select(1, 0));
    cache.values.index_put_(where, values.select(1, 0));
    cache.num_tokens.add_(1);
    return cache;
  }
  TORCH_CHECK_VALUE(length >= window, "LocalAttentionBlock: x has ", length,
                    " tokens, but with a cache takes one, or as many as the window, ", window,
                    "; give them one by one");
  return cache_from_prompt(keys, values, segment_pos, window);
}

}  // namespace gemma::recurrentgemma
