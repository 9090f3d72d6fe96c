#pragma once

#include <gemma/ops/cpu/simd.h>

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

template <typename T>
T* slot_of(void* base, const CacheHead& cache, int64_t position) {
  return static_cast<T*>(base) + position % cache.slots * cache.stride;
}

template <typename T>
void write_slot_as(const CacheHead& cache, int64_t position, const float* k, const float* v) {
  auto* const keys = slot_of<T>(cache.k, cache, position);
  auto* const values = slot_of<T>(cache.v, cache, position);
  int64_t i = 0;
  for (; i + kLanes <= cache.dim; i += kLanes) {
    store(keys + i, load(k + i));
    store(values + i, load(v + i));
  }
  if (i < cache.dim) {
    store_part(keys + i, load_part(k + i, cache.dim - i), cache.dim - i);
    store_part(values + i, load_part(v + i, cache.dim - i), cache.dim - i);
  }
}

void write_slot(const CacheHead& cache, int64_t position, const float* k, const float* v) {
  switch (cache.type) {
    case CacheType::kFloat32:
      return write_slot_as<float>(cache, position, k, v);
    case CacheType::kBFloat16:
      return write_slot_as<BFloat16>(cache, position, k, v);
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

// Heads [0, kHeads) over keys [begin, end) of at most kKeysAtOnce.
template <int kHeads, typename T>
void attend_keys(const float* q,
                 const CacheHead& cache,
                 int64_t begin,
                 int64_t end,
                 float cap,
                 PartialSoftmax* partial,
                 float* out) {
  const auto stride = cache.stride;
  const auto count = end - begin;
  const T* values[kKeysAtOnce];
  float scores[kHeads][kKeysAtOnce];
  for (int64_t j = 0; j < count; ++j) {
    const auto* key = slot_of<const T>(cache.k, cache, begin + j);
    values[j] = slot_of<const T>(cache.v, cache, begin + j);
    Floats sums[kHeads] = {};
    const auto add = [&](const auto& load_at, int64_t i) {
      const auto k = load_at(key + i);
      for (int h = 0; h < kHeads; ++h) sums[h] = fma(k, load_at(q + h * stride + i), sums[h]);
    };
    int64_t i = 0;
    for (; i + kLanes <= stride; i += kLanes) add([](const auto* from) { return load(from); }, i);
    if (i < stride) add([&](const auto* from) { return load_part(from, stride - i); }, i);
    for (int h = 0; h < kHeads; ++h) scores[h][j] = sum(sums[h]);
    for (int64_t byte = 0; byte < stride * static_cast<int64_t>(sizeof(T)); byte += 64) {
      prefetch(reinterpret_cast<const char*>(values[j]) + byte);
    }
  }
  Floats factors[kHeads];
  for (int h = 0; h < kHeads; ++h) {
    if (cap != 0.0F) softcap(scores[h], count, cap);
    factors[h] = splat(extend_softmax(scores[h], count, partial[h]));
  }
  const auto weigh_values = [&](const auto& load_at, const auto& store_at, int64_t i) {
    Floats sums[kHeads];
    for (int h = 0; h < kHeads; ++h) sums[h] = load_at(out + h * stride + i) * factors[h];
    for (int64_t j = 0; j < count; ++j) {
      const auto v = load_at(values[j] + i);
      for (int h = 0; h < kHeads; ++h) sums[h] = fma(splat(scores[h][j]), v, sums[h]);
    }
    for (int h = 0; h < kHeads; ++h) store_at(out + h * stride + i, sums[h]);
  };
  int64_t i = 0;
  for (; i + kLanes <= stride; i += kLanes) {
    weigh_values([](const auto* from) { return load(from); },
                 [](float* to, Floats v) { store(to, v); }, i);
  }
  if (i < stride) {
    weigh_values([&](const auto* from) { return load_part(from, stride - i); },
                 [&](float* to, Floats v) { store_part(to, v, stride - i); }, i);
  }
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
    const auto last = key + kKeysAtOnce < end ? key + kKeysAtOnce : end;
    attend_keys<kHeads, T>(q, cache, key, last, cap, partial, out);
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

// Keys that a tile takes together: steps of what products take together, or a multiple of it.
constexpr int64_t kKeyStep = 32;
constexpr int64_t kTileKeys = 2 * kKeyStep;

// Those of them that are seen: [begin, end).
struct Seen {
  int64_t begin, end;
};

inline const float* query_of(const AttentionTile& tile, const CacheHead& cache, int64_t row) {
  return tile.q + row / tile.heads * tile.ld_q + row % tile.heads * cache.stride;
}

}  // namespace
}  // namespace gemma::cpu
