#include <algorithm>
#include <limits>
#include <vector>

#include <ATen/ATen.h>

#include <gemma/ops/ops.h>
#include <gemma/ops/rotary.h>

namespace gemma {
namespace {

bool is_packed(const WeightView& weight) {
  return weight.quantized() && weight.data.scalar_type() == at::kByte;
}

// 4-bit weights as float32; the reference has none.
at::Tensor unpacked(const WeightView& weight) {
  const auto bytes = weight.data.view({weight.data.size(0), -1, WeightView::kGroup / 2});
  const auto groups = at::cat({bytes.bitwise_and(15), bytes.bitwise_right_shift(4)}, /*dim=*/-1);
  const auto numbers = groups.to(at::kFloat) - 8;
  return (numbers * weight.scales.to(at::kFloat).unsqueeze(-1)).flatten(1);
}

// [B, S, K, D] -> [B, S, H, D].
at::Tensor repeat_heads(const at::Tensor& x, int64_t num_heads) {
  const auto num_kv_heads = x.size(2);
  return num_kv_heads == num_heads ? x : x.repeat_interleave(num_heads / num_kv_heads, /*dim=*/2);
}

// Probabilities [B, V] after top-p and then top-k, in vocabulary order.
at::Tensor filtered_probs(const at::Tensor& logits, const SamplingParams& params) {
  const auto probs = at::softmax(logits, /*dim=*/-1, at::kFloat);
  auto [probs_sort, probs_idx] = at::sort(probs, /*dim=*/-1, /*descending=*/true);

  const auto probs_sum = at::cumsum(probs_sort, /*dim=*/-1);
  const auto top_ps_mask = (probs_sum - probs_sort) > params.top_ps.unsqueeze(1);
  probs_sort = at::where(top_ps_mask, 0, probs_sort);

  const auto rank = at::arange(probs_idx.size(-1), probs_idx.options());
  const auto top_ks_mask = rank.expand({probs_idx.size(0), -1}) >= params.top_ks.unsqueeze(1);
  probs_sort = at::where(top_ks_mask, 0, probs_sort);

  probs_sort.div_(probs_sort.sum(/*dim=*/-1, /*keepdim=*/true));
  // The reference gathers by argsort(probs_idx), a second sort: probs_idx is a permutation, and
  // scattering by it is gathering by its inverse.
  return at::empty_like(probs_sort).scatter_(/*dim=*/-1, probs_idx, probs_sort);
}

}  // namespace

// The reference multiplies the whole table by its scales on every call, even for the embedding;
// the product of the rows that are used is the same.
at::Tensor dequantize(const WeightView& weight) {
  if (weight.blocks) return read_all(*weight.blocks, weight.data);
  if (is_packed(weight)) return unpacked(weight);
  return weight.quantized() ? weight.data * weight.scales.unsqueeze(-1) : weight.data;
}

at::Tensor softcap(const at::Tensor& x, double cap) { return at::tanh(x / cap) * cap; }

at::Tensor Ops::linear(const at::Tensor& x, const WeightView& weight, Pass /*pass*/) const {
  const auto matrix = dequantize(weight);
  return at::linear(x, is_packed(weight) ? matrix.to(x.scalar_type()) : matrix);
}

at::Tensor Ops::embedding(const at::Tensor& ids, const WeightView& weight) const {
  if (weight.blocks) {
    auto sizes = ids.sizes().vec();
    sizes.push_back(weight.blocks->columns);
    return read_rows(*weight.blocks, weight.data, ids).view(sizes);
  }
  auto rows = at::embedding(weight.data, ids);
  if (!weight.quantized()) return rows;
  return rows * weight.scales.index_select(0, ids.flatten()).view(ids.sizes()).unsqueeze(-1);
}

at::Tensor Ops::rms_norm(const at::Tensor& x, const NormWeight& norm) const {
  if (!norm.in_float32) {  // recurrentgemma/torch/layers.py: RMSNorm.
    const auto var = at::mean(at::square(x), /*dim=*/-1, /*keepdim=*/true);
    const auto inverse_rms = inner(Inner::kInverseRms, at::rsqrt(var + norm.eps));
    const auto normed = inner(Inner::kNormalized, x * inverse_rms);
    return normed * (norm.add_unit_offset ? norm.weight + 1 : norm.weight);
  }
  const auto wide = x.to(at::kFloat);
  const auto mean = wide.pow(2).mean(/*dim=*/-1, /*keepdim=*/true);
  const auto inverse_rms = inner(Inner::kInverseRms, at::rsqrt(mean + norm.eps));
  const auto normed = inner(Inner::kNormalized, wide * inverse_rms);
  const auto weight = norm.weight.to(at::kFloat);
  return (normed * (norm.add_unit_offset ? weight + 1 : weight)).to(x.scalar_type());
}

at::Tensor Ops::add_rms_norm(const at::Tensor& residual,
                             const at::Tensor& x,
                             const NormWeight& norm) const {
  return residual + rms_norm(x, norm);
}

at::Tensor Ops::gated_mlp(const at::Tensor& x,
                          const WeightView& gate,
                          const WeightView& up,
                          const WeightView& down,
                          Pass pass) const {
  const auto gated = at::gelu(linear(x, gate, pass), /*approximate=*/"tanh");
  return linear(gated * linear(x, up, pass), down, pass);
}

at::Tensor Ops::rotate_and_cache(const at::Tensor& qkv,
                                 const HeadShape& shape,
                                 const HeadNorms& norms,
                                 const at::Tensor& freqs_cis,
                                 const at::Tensor& write_indices,
                                 const KVCache& cache) const {
  const auto q_size = shape.num_heads * shape.head_dim;
  const auto kv_size = shape.num_kv_heads * shape.head_dim;
  const auto parts = qkv.split_with_sizes({q_size, kv_size, kv_size}, /*dim=*/-1);
  const auto heads = [&](const at::Tensor& part, int64_t count) {
    return part.view({qkv.size(0), -1, count, shape.head_dim});
  };
  auto q = heads(parts[0], shape.num_heads);
  auto k = heads(parts[1], shape.num_kv_heads);
  const auto v = heads(parts[2], shape.num_kv_heads);

  if (norms.query) q = rms_norm(q, *norms.query);
  if (norms.key) k = rms_norm(k, *norms.key);
  q = inner(Inner::kRotatedQuery, apply_rotary_emb(q, freqs_cis));
  k = inner(Inner::kRotatedKey, apply_rotary_emb(k, freqs_cis));

  cache.k.index_copy_(1, write_indices, k);
  cache.v.index_copy_(1, write_indices, v);
  return q;
}

at::Tensor Ops::attend(const at::Tensor& q,
                       const KVCache& cache,
                       const at::Tensor& mask,
                       const AttentionScale& scale) const {
  const auto num_heads = q.size(2);
  const auto queries = q.transpose(1, 2);                                // [B, H, L, D]
  const auto keys = repeat_heads(cache.k, num_heads).transpose(1, 2);    // [B, H, S, D]
  const auto values = repeat_heads(cache.v, num_heads).transpose(1, 2);  // [B, H, S, D]

  // Scaled before the product, in the queries' dtype. By a tensor, as Python's q.mul_(number): the
  // overload for a Scalar rounds the number to a 16-bit dtype first.
  queries.mul_(at::scalar_tensor(scale.scaling, at::kDouble));
  auto scores = at::matmul(queries, keys.transpose(2, 3));  // [B, H, L, S]
  if (scale.softcap) scores = softcap(scores, *scale.softcap);
  // The mask is float32 and so are the masked scores, whatever the model's dtype.
  scores = inner(Inner::kScores, scores + mask);
  const auto probs =
      inner(Inner::kPattern, at::softmax(scores.to(at::kFloat), /*dim=*/-1).to(q.scalar_type()));
  return at::matmul(probs, values).transpose(1, 2).contiguous().view({q.size(0), q.size(1), -1});
}

namespace {

// Where the positions [begin, end) of a sequence are: (block, place in it), int64 each.
c10::List<std::optional<at::Tensor>> places_of(const BlockTable& table,
                                               int64_t begin,
                                               int64_t end,
                                               at::Device device) {
  constexpr auto kSize = BlockCache::kPositions;
  std::vector<int64_t> blocks, places;
  for (auto position = begin; position < end; ++position) {
    blocks.push_back(table.blocks[position / kSize - table.first]);
    places.push_back(position % kSize);
  }
  c10::List<std::optional<at::Tensor>> indices;
  indices.push_back(at::tensor(blocks, at::kLong).to(device));
  indices.push_back(at::tensor(places, at::kLong).to(device));
  return indices;
}

// [blocks, K, positions, D padded] -> [blocks, positions, K, D], in the same memory.
at::Tensor by_position(const at::Tensor& blocks, int64_t head_dim) {
  return blocks.transpose(1, 2).narrow(3, 0, head_dim);
}

}  // namespace

// The reference has no such thing: its own steps for each segment, on the keys that it sees, put
// in order as it would have them.
at::Tensor Ops::attend_segments(const at::Tensor& qkv,
                                const HeadShape& shape,
                                const HeadNorms& norms,
                                const AttentionScale& scale,
                                std::optional<int64_t> window,
                                const at::Tensor& freqs_cis,
                                Pass /*pass*/,
                                std::span<const Segment> segments,
                                const BlockCache& cache,
                                std::span<const BlockTable> tables) const {
  std::vector<at::Tensor> results;
  for (size_t i = 0; i < segments.size(); ++i) {
    const auto [first_token, rows, position, bidirectional, window_side] = segments[i];
    // Keys that a token sees, itself included; all where there is no window.
    const bool bounded = window && window_side != WindowSide::kNone;
    const auto reach = bounded ? *window : position + rows;
    const auto oldest = std::max<int64_t>(0, position - reach + 1);
    const auto keys = position + rows - oldest;
    const auto positions = at::arange(oldest, position + rows, qkv.options().dtype(at::kLong));
    const auto places = places_of(tables[i], oldest, position + rows, qkv.device());

    // [blocks, K, positions, D padded] -> [1, keys, K, D]
    const auto seen = [&](const at::Tensor& blocks) {
      return by_position(blocks, shape.head_dim).index(places).unsqueeze(0).to(qkv.scalar_type());
    };
    const KVCache dense{seen(cache.k), seen(cache.v)};
    const auto written = at::arange(keys - rows, keys, positions.options());
    const auto q = rotate_and_cache(qkv.narrow(0, first_token, rows).unsqueeze(0), shape, norms,
                                    freqs_cis.narrow(0, first_token, rows), written, dense);
    const auto write = [&](const at::Tensor& blocks, const at::Tensor& from) {
      by_position(blocks, shape.head_dim).index_put_(places, from[0].to(blocks));
    };
    write(cache.k, dense.k);
    write(cache.v, dense.v);

    const auto row_positions = positions.narrow(0, keys - rows, rows).unsqueeze(1);
    auto hidden = bidirectional ? at::zeros({rows, keys}, positions.options().dtype(at::kBool))
                                : positions > row_positions;
    hidden.logical_or_(positions <= row_positions - reach);
    if (window_side == WindowSide::kBoth) hidden.logical_or_(positions >= row_positions + reach);
    const auto mask = at::zeros({rows, keys}, qkv.options().dtype(at::kFloat))
                          .masked_fill_(hidden, -std::numeric_limits<float>::infinity());
    results.push_back(attend(q, dense, mask, scale)[0]);
  }
  return at::cat(results);
}

at::Tensor Ops::logits(const at::Tensor& hidden,
                       const WeightView& embedding,
                       at::Tensor /*buffer*/) const {
  return at::matmul(hidden, dequantize(embedding).t());
}

at::Tensor Ops::inner(Inner /*which*/, const at::Tensor& value) const { return value; }

std::pair<at::Tensor, at::Tensor> Ops::sample(const at::Tensor& hidden,
                                              const WeightView& embedding,
                                              const std::optional<at::Tensor>& bias,
                                              std::optional<double> softcap_value,
                                              const SamplingParams& params) const {
  auto logits = this->logits(hidden, embedding, {});
  if (bias) logits += *bias;
  if (softcap_value) logits = softcap(logits, *softcap_value);
  if (!params.temperatures) {
    // Squeezed as in the reference: one row gives a 0-dim tensor.
    return {at::argmax(logits, /*dim=*/-1).squeeze(-1), logits};
  }
  // In place: the logits that are returned are those of the temperature.
  logits.div_(params.temperatures->unsqueeze(1));
  const auto probs = filtered_probs(logits, params);
  const auto tokens = at::multinomial(probs, /*num_samples=*/1, /*replacement=*/true).squeeze(-1);
  return {tokens, logits};
}

}  // namespace gemma
