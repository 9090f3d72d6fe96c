#pragma once

#include <gemma/ops/cpu/vector/blocking.h>

// Rotary embedding, the cache, and the attention of one token.
namespace gemma::cpu {
namespace {

constexpr float kNothingSeen = -3.0e38F;

void rotate(const float* x, const float* freqs, float scale, int64_t dim, float* out) {
  const auto half = dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const auto cos = freqs[2 * i] * scale;
    const auto sin = freqs[2 * i + 1] * scale;
    out[i] = x[i] * cos - x[half + i] * sin;
    out[half + i] = x[i] * sin + x[half + i] * cos;
  }
  for (int64_t i = dim; i < round_up(dim, kCachePadding); ++i) out[i] = 0.0F;
}

// Where a key or a value is; base is cache.k or cache.v.
template <typename T>
T* row_at(void* base, const CacheHead& cache, int64_t position) {
  const auto block = cache.blocks[position / kCacheBlock - cache.first];
  return static_cast<T*>(base) + block * cache.block_stride + position % kCacheBlock * cache.stride;
}

template <typename T>
void write_position_as(const CacheHead& cache, int64_t position, const float* k, const float* v) {
  auto* const keys = row_at<T>(cache.k, cache, position);
  auto* const values = row_at<T>(cache.v, cache, position);
  int64_t i = 0;
  for (; i + kLanes <= cache.dim; i += kLanes) {
    store(keys + i, load(k + i));
    store(values + i, load(v + i));
  }
  if (i < cache.dim) {
    store_part(keys + i, load_part(k + i, cache.dim - i), cache.dim - i);
    store_part(values + i, load_part(v + i, cache.dim - i), cache.dim - i);
  }
  for (i = cache.dim; i < cache.stride; ++i) keys[i] = values[i] = T{};
}

void write_position(const CacheHead& cache, int64_t position, const float* k, const float* v) {
  switch (cache.type) {
    case CacheType::kFloat32:
      return write_position_as<float>(cache, position, k, v);
    case CacheType::kBFloat16:
      return write_position_as<BFloat16>(cache, position, k, v);
  }
}

void softcap(float* x, int64_t size, float cap) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) store(x + i, tanh(load(x + i) / cap) * cap);
  if (i < size) store_part(x + i, tanh(load_part(x + i, size - i) / cap) * cap, size - i);
}

// Takes scores[0 .. size) into a softmax: they become e^(score - max), `partial` what it was over
// more keys. -> what has to multiply the values that were summed before.
inline float extend_softmax(float* scores, int64_t size, PartialSoftmax& partial) {
  auto highest = splat(partial.max);
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) highest = max(highest, load(scores + i));
  auto peak = largest(highest);
  for (auto j = i; j < size; ++j) peak = scores[j] > peak ? scores[j] : peak;

  auto total = zeros();
  for (i = 0; i + kLanes <= size; i += kLanes) {
    const auto e = exp(load(scores + i) - peak);
    store(scores + i, e);
    total += e;
  }
  auto added = sum(total);
  if (i < size) {
    store_part(scores + i, exp(load_part(scores + i, size - i) - peak), size - i);
    for (; i < size; ++i) added += scores[i];
  }
  const auto factor = exp(splat(partial.max - peak))[0];
  partial = {peak, partial.sum * factor + added};
  return factor;
}

constexpr int64_t kKeysAtOnce = 32;

template <typename T>
inline void prefetch_row(const T* from, int64_t size) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < size; i += kLine) prefetch(from + i);
}

// Scores of kHeads heads and kKeys keys, rows of `stride` numbers: scores[h * kKeysAtOnce + j] =
// q[h] . keys[j].
template <int kHeads, int kKeys, typename T>
void score_keys(const float* q, int64_t stride, const T* const* keys, float* scores) {
  Floats sums[kKeys][kHeads] = {};
  int64_t i = 0;
  for (; i + kLanes <= stride; i += kLanes) {
    Floats k[kKeys];
    for (int j = 0; j < kKeys; ++j) k[j] = load(keys[j] + i);
    for (int h = 0; h < kHeads; ++h) {
      const auto query = load(q + h * stride + i);
      for (int j = 0; j < kKeys; ++j) sums[j][h] = fma(k[j], query, sums[j][h]);
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    for (int j = 0; j < kKeys; ++j) scores[h * kKeysAtOnce + j] = sum(sums[j][h]);
  }
  const auto left = stride - i;
  if (left == 0) return;
  for (int h = 0; h < kHeads; ++h) {
    const auto query = load_part(q + h * stride + i, left);
    for (int j = 0; j < kKeys; ++j) {
      scores[h * kKeysAtOnce + j] += sum(load_part(keys[j] + i, left) * query);
    }
  }
}

constexpr int64_t kWeighed = 2 * kLanes;

// out[h] = out[h] * factors[h] + the sum over `count` rows j of scores[h * kKeysAtOnce + j] *
// values[j], of the numbers [i, i + width), at most kWeighed. These of the rows `next` are asked
// for: they come while there is nothing but arithmetic to do.
template <int kHeads, typename T>
inline __attribute__((always_inline)) void weigh_values(const float* scores,
                                                        const Floats* factors,
                                                        const T* const* values,
                                                        const T* const* next,
                                                        int64_t count,
                                                        int64_t stride,
                                                        int64_t i,
                                                        int64_t width,
                                                        float* out) {
  constexpr int64_t kVectors = kWeighed / kLanes;
  const auto vectors = (width + kLanes - 1) / kLanes;
  const auto load_at = load_up_to(width);
  Floats sums[kHeads][kVectors];
  for (int h = 0; h < kHeads; ++h) {
    for (int64_t n = 0; n < vectors; ++n) {
      sums[h][n] = load_at(out + h * stride + i, n * kLanes) * factors[h];
    }
  }
  for (int64_t j = 0; j < count; ++j) {
    prefetch_row(next[j] + i, width);
    Floats v[kVectors];
    for (int64_t n = 0; n < vectors; ++n) v[n] = load_at(values[j] + i, n * kLanes);
    for (int h = 0; h < kHeads; ++h) {
      const auto score = splat(scores[h * kKeysAtOnce + j]);
      for (int64_t n = 0; n < vectors; ++n) sums[h][n] = fma(score, v[n], sums[h][n]);
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    for (int64_t n = 0; n < vectors; ++n) {
      auto* const to = out + h * stride + i + n * kLanes;
      const auto left = width - n * kLanes;
      if (left >= kLanes) {
        store(to, sums[h][n]);
      } else {
        store_part(to, sums[h][n], left);
      }
    }
  }
}

// Heads [0, kHeads) over keys [begin, end) of at most kKeysAtOnce; those before `limit` come next.
template <int kHeads, typename T>
void attend_keys(const float* q,
                 const CacheHead& cache,
                 int64_t begin,
                 int64_t end,
                 int64_t limit,
                 float cap,
                 PartialSoftmax* partial,
                 float* out) {
  const auto stride = cache.stride;
  const auto count = end - begin;
  const T* keys[2 * kKeysAtOnce];  // And those that come next.
  const T* values[kKeysAtOnce];
  for (int64_t j = 0; j < 2 * count; ++j) {
    keys[j] = row_at<const T>(cache.k, cache, begin + j < limit ? begin + j : limit - 1);
    if (j < count) values[j] = row_at<const T>(cache.v, cache, begin + j);
  }

  float scores[kHeads * kKeysAtOnce];
  int64_t j = 0;
  const auto score = [&](auto together) {
    score_keys<kHeads, together>(q, stride, keys + j, scores + j);
    for (const auto last = j + together; j < last; ++j) prefetch_row(values[j], stride);
  };
  while (j + 2 <= count) score(Constant<2>());
  while (j < count) score(Constant<1>());

  Floats factors[kHeads];
  for (int h = 0; h < kHeads; ++h) {
    auto* const of_head = scores + h * kKeysAtOnce;
    if (cap != 0.0F) softcap(of_head, count, cap);
    factors[h] = splat(extend_softmax(of_head, count, partial[h]));
  }
  each_step<kWeighed>(stride, [&](int64_t i, int64_t width) __attribute__((always_inline)) {
    weigh_values<kHeads>(scores, factors, values, keys + count, count, stride, i, width, out);
  });
}

template <int kHeads, typename T>
void attend_one_as(const float* q,
                   const CacheHead& cache,
                   int64_t begin,
                   int64_t end,
                   float cap,
                   PartialSoftmax* partial,
                   float* out) {
  for (int h = 0; h < kHeads; ++h) partial[h] = {kNothingSeen, 0.0F};
  std::memset(out, 0, kHeads * cache.stride * sizeof(float));
  for (auto key = begin; key < end; key += kKeysAtOnce) {
    const auto next = key + kKeysAtOnce < end ? key + kKeysAtOnce : end;
    attend_keys<kHeads, T>(q, cache, key, next, end, cap, partial, out);
  }
}

template <typename T>
void attend_heads(const float* q,
                  int64_t heads,
                  const CacheHead& cache,
                  int64_t begin,
                  int64_t end,
                  float cap,
                  PartialSoftmax* partial,
                  float* out) {
  int64_t h = 0;
  for (; h + 4 <= heads; h += 4) {
    attend_one_as<4, T>(q + h * cache.stride, cache, begin, end, cap, partial + h,
                        out + h * cache.stride);
  }
  for (; h + 2 <= heads; h += 2) {
    attend_one_as<2, T>(q + h * cache.stride, cache, begin, end, cap, partial + h,
                        out + h * cache.stride);
  }
  for (; h < heads; ++h) {
    attend_one_as<1, T>(q + h * cache.stride, cache, begin, end, cap, partial + h,
                        out + h * cache.stride);
  }
}

void attend_one(const float* q,
                int64_t heads,
                const CacheHead& cache,
                int64_t begin,
                int64_t end,
                float cap,
                PartialSoftmax* partial,
                float* out) {
  switch (cache.type) {
    case CacheType::kFloat32:
      return attend_heads<float>(q, heads, cache, begin, end, cap, partial, out);
    case CacheType::kBFloat16:
      return attend_heads<BFloat16>(q, heads, cache, begin, end, cap, partial, out);
  }
}

// Keys that a block takes together: steps of what products take together, or a multiple of it.
constexpr int64_t kKeyStep = 32;
constexpr int64_t kBlockKeys = 2 * kKeyStep;

// Those of them that are seen: [begin, end).
struct Seen {
  int64_t begin, end;
};

inline const float* query_of(const AttentionBlock& block, const CacheHead& cache, int64_t row) {
  return block.q + row / block.heads * block.ld_q + row % block.heads * cache.stride;
}

}  // namespace
}  // namespace gemma::cpu
