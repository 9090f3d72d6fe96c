#include <cmath>
#include <numeric>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <gemma/ops/cpu/attention_work.h>
#include <gemma/ops/cpu/cpu_ops.h>
#include <gemma/ops/cpu/cpu_tensors.h>

namespace gemma {
namespace {

static_assert(BlockCache::kPadding == cpu::kCachePadding &&
              BlockCache::kPositions == cpu::kCacheBlock && WeightView::kGroup == cpu::kGroup);

cpu::CacheType cache_type(const BlockCache& cache) {
  return cache.k.scalar_type() == at::kBFloat16 ? cpu::CacheType::kBFloat16
                                                : cpu::CacheType::kFloat32;
}

void check(const BlockCache& cache, int64_t kv_heads, int64_t stride) {
  TORCH_CHECK(
      cache.k.is_contiguous() && cache.v.is_contiguous() && cache.k.sizes() == cache.v.sizes() &&
          cache.k.dim() == 4 && cache.k.size(1) == kv_heads &&
          cache.k.size(2) == cpu::kCacheBlock && cache.k.size(3) == stride,
      "attend_segments: a cache is ", cache.k.sizes(), " and ", cache.v.sizes(),
      ", but must be contiguous [blocks, ", kv_heads, ", ", cpu::kCacheBlock, ", ", stride, "]");
}

cpu::CacheHead head_of(const BlockCache& cache,
                       const BlockTable& table,
                       int64_t head,
                       int64_t dim) {
  const auto bytes = head * cache.k.stride(1) * cache.k.element_size();
  return {static_cast<std::byte*>(cache.k.data_ptr()) + bytes,
          static_cast<std::byte*>(cache.v.data_ptr()) + bytes,
          cache_type(cache),
          table.blocks.data(),
          table.first,
          cache.k.stride(0),
          dim,
          cache.k.size(3)};
}

}  // namespace

at::Tensor CpuOps::attend_segments(const at::Tensor& qkv,
                                   const HeadShape& shape,
                                   const HeadNorms& norms,
                                   const AttentionScale& scale,
                                   std::optional<int64_t> window,
                                   const at::Tensor& freqs_cis,
                                   Pass pass,
                                   std::span<const Segment> segments,
                                   const BlockCache& cache,
                                   std::span<const BlockTable> tables) const {
  RECORD_FUNCTION("gemma::attend_segments", std::vector<c10::IValue>());
  const auto [num_heads, num_kv_heads, dim] = shape;
  const Attention attention{shape, scale.scaling, static_cast<float>(scale.softcap.value_or(0.0)),
                            window.value_or(0), cpu::round_up(dim, cpu::kCachePadding)};
  check(cache, num_kv_heads, attention.stride);
  const auto from = as_rows(qkv);
  std::vector<cpu::CacheHead> heads;  // [segments, K]
  for (const auto& table : tables) {
    for (int64_t head = 0; head < num_kv_heads; ++head) {
      heads.push_back(head_of(cache, table, head, dim));
    }
  }
  const auto q = at::empty({from.size(0), num_heads, attention.stride}, at::kFloat);
  auto out = at::empty({from.size(0), num_heads * dim}, at::kFloat);
  const AttentionTokens tokens{segments, heads.data(), q.mutable_data_ptr<float>()};
  prepare_tokens(attention, norms, freqs_cis, from, tokens);
  if (pass == Pass::kDecode) {
    attend_tokens(attention, tokens, out.mutable_data_ptr<float>());
  } else {
    attend_chunks(attention, tokens, out.mutable_data_ptr<float>());
  }
  return in_dtype(out, qkv.scalar_type());
}

at::Tensor CpuOps::attend_all(const at::Tensor& q,
                              const at::Tensor& k,
                              const at::Tensor& v,
                              int64_t num_heads) const {
  RECORD_FUNCTION("gemma::attend_all", std::vector<c10::IValue>());
  const auto dim = q.size(-1) / num_heads;
  const auto count = q.size(1);
  const Attention attention{
      {num_heads, num_heads, dim}, 1.0, 0.0F, 0, cpu::round_up(dim, cpu::kCachePadding)};
  // [N, P, H, stride]
  const auto heads = [&](const at::Tensor& x) {
    const auto split = as_rows(x).view({x.size(0), count, num_heads, dim});
    return at::constant_pad_nd(split, {0, attention.stride - dim});
  };
  const auto queries = (heads(q) * std::pow(static_cast<double>(dim), -0.5)).contiguous();
  const auto keys = heads(k).transpose(1, 2).contiguous();
  const auto values = heads(v).transpose(1, 2).contiguous();
  auto out = at::empty(q.sizes(), at::kFloat);
  const Segment segment{.first_token = 0, .tokens = count, .position = 0, .bidirectional = true};
  // The patches of a head are one after another: so are their blocks.
  std::vector<int32_t> blocks(
      static_cast<size_t>(cpu::round_up(count, cpu::kCacheBlock) / cpu::kCacheBlock));
  std::iota(blocks.begin(), blocks.end(), 0);
  for (int64_t image = 0; image < q.size(0); ++image) {
    std::vector<cpu::CacheHead> of_heads;
    for (int64_t head = 0; head < num_heads; ++head) {
      of_heads.push_back({keys[image][head].data_ptr(), values[image][head].data_ptr(),
                          cpu::CacheType::kFloat32, blocks.data(), 0,
                          cpu::kCacheBlock * attention.stride, dim, attention.stride});
    }
    const AttentionTokens tokens{
        {&segment, 1}, of_heads.data(), queries[image].mutable_data_ptr<float>()};
    attend_chunks(attention, tokens, out[image].mutable_data_ptr<float>());
  }
  return in_dtype(out, q.scalar_type());
}

}  // namespace gemma
