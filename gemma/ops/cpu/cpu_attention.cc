#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <gemma/ops/cpu/cpu_ops.h>
#include <gemma/ops/cpu/cpu_tensors.h>
#include <gemma/ops/parallel.h>

namespace gemma {
namespace {

static_assert(RingCache::kPadding == cpu::kCachePadding && WeightView::kGroup == cpu::kGroup);

// Keys that one task of one token's attention takes: the same for any number of threads, so the
// result is the same too. Few for short texts, so that all threads have tasks; more for long ones,
// as the parts have to be combined at the end.
int64_t keys_per_task(int64_t keys) {
  constexpr int64_t kTasks = 8;
  constexpr int64_t kLeast = 32;
  constexpr int64_t kMost = 128;
  return std::clamp(cpu::round_up(keys / kTasks, 8), kLeast, kMost);
}

struct Attention {
  HeadShape shape;
  double scaling;
  float softcap;
  int64_t window;  // 0: none.
  int64_t stride;  // Of a head in q and in the caches.

  int64_t group() const { return shape.num_heads / shape.num_kv_heads; }
  int64_t first_key(int64_t position) const {
    return window > 0 ? std::max<int64_t>(0, position - window + 1) : 0;
  }
};

cpu::CacheHead head_of(const RingCache& cache, int64_t head, int64_t dim) {
  TORCH_CHECK(cache.k.is_contiguous() && cache.v.is_contiguous() &&
                  cache.k.sizes() == cache.v.sizes() &&
                  cache.k.size(2) == cpu::round_up(dim, cpu::kCachePadding),
              "attend_segments: a cache is ", cache.k.sizes(), " and ", cache.v.sizes(),
              ", but must be contiguous [K, S, D padded]");
  const auto type =
      cache.k.scalar_type() == at::kBFloat16 ? cpu::CacheType::kBFloat16 : cpu::CacheType::kFloat32;
  const auto bytes = head * cache.k.stride(0) * cache.k.element_size();
  return {static_cast<std::byte*>(cache.k.data_ptr()) + bytes,
          static_cast<std::byte*>(cache.v.data_ptr()) + bytes,
          type,
          cache.k.size(1),
          dim,
          cache.k.size(2)};
}

// A norm's weight, ready for the kernel; without data if there is none.
struct HeadNorm {
  explicit HeadNorm(const std::optional<NormWeight>& norm)
      : weight(norm ? WeightView(norm->weight) : WeightView(at::empty({1}, at::kFloat))),
        offset(norm && norm->add_unit_offset ? 1.0F : 0.0F),
        eps(norm ? static_cast<float>(norm->eps) : 0.0F),
        present(norm.has_value()) {}

  // x or its norm, which is written to `out`.
  const float* operator()(const float* x, float* out) const {
    if (!present) return x;
    cpu::kernels().rms_norm(x, *weight, offset, eps, nullptr, out);
    return out;
  }

  CpuWeight weight;
  float offset, eps;
  bool present;
};

// Attention of single tokens: each task takes some keys, then the parts are combined.
class TokenAttention {
 public:
  TokenAttention(const Attention& attention,
                 const float* q,
                 const cpu::CacheHead* caches,
                 int64_t position)
      : attention_(attention),
        q_(q),
        caches_(caches),
        position_(position),
        first_(attention.first_key(position)),
        keys_per_task_(keys_per_task(position - first_ + 1)),
        parts_((position - first_) / keys_per_task_ + 1),
        partial_(static_cast<size_t>(parts_ * attention.shape.num_heads)),
        values_(parts_ * attention.shape.num_heads * attention.stride) {}

  int64_t tasks() const { return parts_ * attention_.shape.num_kv_heads; }

  void work(int64_t task) {
    const auto part = task % parts_;
    const auto kv_head = task / parts_;
    const auto head = kv_head * attention_.group();
    const auto begin = first_ + part * keys_per_task_;
    const auto end = std::min(begin + keys_per_task_, position_ + 1);
    const auto at = part * attention_.shape.num_heads + head;
    cpu::kernels().attend_one(q_ + head * attention_.stride, attention_.group(), caches_[kv_head],
                              begin, end, attention_.softcap, &partial_[at],
                              values_.get() + at * attention_.stride);
  }

  // out [H * D]
  void finish(float* out) const {
    const auto [num_heads, _, dim] = attention_.shape;
    for (int64_t head = 0; head < num_heads; ++head) {
      auto highest = partial_[head].max;
      for (auto at = head; at < parts_ * num_heads; at += num_heads) {
        highest = std::max(highest, partial_[at].max);
      }
      std::fill_n(out + head * dim, dim, 0.0F);
      auto total = 0.0F;
      for (auto at = head; at < parts_ * num_heads; at += num_heads) {
        const auto factor = std::exp(partial_[at].max - highest);
        total += factor * partial_[at].sum;
        const auto* const values = values_.get() + at * attention_.stride;
        for (int64_t i = 0; i < dim; ++i) out[head * dim + i] += factor * values[i];
      }
      for (int64_t i = 0; i < dim; ++i) out[head * dim + i] /= total;
    }
  }

 private:
  const Attention& attention_;
  const float* q_;
  const cpu::CacheHead* caches_;
  int64_t position_, first_, keys_per_task_, parts_;
  std::vector<cpu::PartialSoftmax> partial_;  // [parts, H]
  Buffer<float> values_;                      // [parts, H, stride]
};

// A chunk of a prompt, in blocks of tokens. The last blocks come first, as they take longest.
void attend_chunk(const Attention& attention,
                  const Segment& segment,
                  const cpu::CacheHead* caches,
                  const float* q,
                  float* out) {
  const auto& kernels = cpu::kernels();
  const auto [num_heads, num_kv_heads, dim] = attention.shape;
  // A group larger than a block is cut into pieces.
  const auto heads = std::min(attention.group(), kernels.attend_rows);
  const auto pieces = cpu::round_up(attention.group(), heads) / heads;
  // Each block packs the keys and values that it sees. So blocks are large for few threads, and
  // small enough for each of many threads to have some.
  constexpr int64_t kBlocksPerWorker = 3;
  const auto share =
      segment.tokens * heads * pieces * num_kv_heads / (num_workers() * kBlocksPerWorker) + 1;
  const auto rows = std::min(cpu::round_up(share, kernels.attend_mr), kernels.attend_rows);
  const auto tokens = std::max<int64_t>(1, rows / heads);
  const auto blocks = cpu::round_up(segment.tokens, tokens) / tokens;
  const Scratch scratch(kernels.attend_scratch(*caches));
  const auto ld_q = num_heads * attention.stride;
  const auto ld_out = num_heads * dim;
  parallel_for(blocks * num_kv_heads * pieces, [&](int64_t task, int64_t worker) {
    const auto kv_head = task % num_kv_heads;
    const auto piece = task / num_kv_heads % pieces;
    const auto first = (blocks - 1 - task / num_kv_heads / pieces) * tokens;
    const auto head = kv_head * attention.group() + piece * heads;
    const cpu::AttentionBlock block{
        .q = q + first * ld_q + head * attention.stride,
        .ld_q = ld_q,
        .tokens = std::min(tokens, segment.tokens - first),
        .heads = std::min(heads, attention.group() - piece * heads),
        .position = segment.position + first,
        .window = attention.window,
        .image_end = segment.bidirectional ? segment.position + segment.tokens : 0,
        .softcap = attention.softcap,
        .out = out + first * ld_out + head * dim,
        .ld_out = ld_out,
    };
    kernels.attend_block(block, caches[kv_head], scratch.of(worker));
  });
}

}  // namespace

at::Tensor CpuOps::attend_segments(const at::Tensor& qkv,
                                   const HeadShape& shape,
                                   const HeadNorms& norms,
                                   const AttentionScale& scale,
                                   std::optional<int64_t> window,
                                   const at::Tensor& freqs_cis,
                                   std::span<const Segment> segments,
                                   std::span<const RingCache> caches) const {
  RECORD_FUNCTION("gemma::attend_segments", std::vector<c10::IValue>());
  const auto [num_heads, num_kv_heads, dim] = shape;
  const Attention attention{shape, scale.scaling, static_cast<float>(scale.softcap.value_or(0.0)),
                            window.value_or(0), cpu::round_up(dim, cpu::kCachePadding)};
  const auto& kernels = cpu::kernels();
  const auto from = as_rows(qkv);
  const auto freqs = freqs_cis.contiguous();
  const auto* const angles = static_cast<const float*>(freqs.const_data_ptr());
  const HeadNorm query_norm(norms.query);
  const HeadNorm key_norm(norms.key);

  std::vector<cpu::CacheHead> heads;  // [segments, K]
  for (const auto& cache : caches) {
    for (int64_t head = 0; head < num_kv_heads; ++head) heads.push_back(head_of(cache, head, dim));
  }
  const auto q = at::empty({from.size(0), num_heads, attention.stride}, at::kFloat);
  auto out = at::empty({from.size(0), num_heads * dim}, at::kFloat);

  const Scratch scratch(2 * attention.stride);
  const auto prepare = [&](const Segment& segment, const cpu::CacheHead* cache, int64_t row,
                           int64_t worker) {
    auto* const memory = scratch.of(worker);
    const auto position = segment.position + row;
    const auto* const freq = angles + position * dim;
    const auto* x = from.const_data_ptr<float>() + (segment.first_token + row) * from.size(1);
    auto* const queries =
        q.mutable_data_ptr<float>() + (segment.first_token + row) * num_heads * attention.stride;
    for (int64_t head = 0; head < num_heads; ++head, x += dim) {
      kernels.rotate(query_norm(x, memory), freq, static_cast<float>(attention.scaling), dim,
                     queries + head * attention.stride);
    }
    for (int64_t head = 0; head < num_kv_heads; ++head, x += dim) {
      auto* const key = memory + attention.stride;
      kernels.rotate(key_norm(x, memory), freq, 1.0F, dim, key);
      kernels.write_slot(cache[head], position, key, x + num_kv_heads * dim);
    }
  };

  for (size_t i = 0; i < segments.size(); ++i) {
    const auto& segment = segments[i];
    const auto* const cache = &heads[i * num_kv_heads];
    const auto* const queries =
        q.const_data_ptr<float>() + segment.first_token * num_heads * attention.stride;
    auto* const results = out.mutable_data_ptr<float>() + segment.first_token * num_heads * dim;
    if (segment.tokens == 1) {
      prepare(segment, cache, 0, 0);
      TokenAttention token(attention, queries, cache, segment.position);
      parallel_for(token.tasks(), [&](int64_t task, int64_t /*worker*/) { token.work(task); });
      token.finish(results);
    } else {
      parallel_for(segment.tokens,
                   [&](int64_t row, int64_t worker) { prepare(segment, cache, row, worker); });
      attend_chunk(attention, segment, cache, queries, results);
    }
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
  for (int64_t image = 0; image < q.size(0); ++image) {
    const RingCache cache{keys[image], values[image]};
    std::vector<cpu::CacheHead> of_heads;
    for (int64_t head = 0; head < num_heads; ++head) {
      of_heads.push_back(head_of(cache, head, dim));
    }
    attend_chunk(attention, segment, of_heads.data(), queries[image].const_data_ptr<float>(),
                 out[image].mutable_data_ptr<float>());
  }
  return in_dtype(out, q.scalar_type());
}

}  // namespace gemma
