#pragma once

#include <gemma/ops/cpu/matmul_loops.h>

// Rotary embedding, the cache, and attention over it.
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

int64_t tile_scratch(int64_t stride) {
  const auto width = round_up(stride, kPanelRows);
  return 2 * (kTileRows + kTileKeys) * width + 2 * kPackedRows * kTileKeys;
}

// The parts of a tile's scratch memory.
struct TileMemory {
  TileMemory(float* memory, int64_t width)
      : q(memory),
        keys(q + kTileRows * width),
        values(keys + kTileKeys * width),
        sums(values + kTileKeys * width),
        scores(sums + kTileRows * width),
        weights(scores + kPackedRows * kTileKeys) {}

  float* q;        // Packed.
  float* keys;     // Panels over the keys.
  float* values;   // Panels over the head's numbers.
  float* sums;     // [rows, width], the result before its division.
  float* scores;   // [kPackedRows, kTileKeys], of one group of rows at a time.
  float* weights;  // Their exponentials, packed.
};

inline void pack_queries(const AttentionTile& tile, int64_t stride, float* packed) {
  const auto rows = tile.tokens * tile.heads;
  for (int64_t row0 = 0; row0 < rows; row0 += kPackedRows) {
    const auto queries = [&](int64_t r) {
      const auto row = row0 + r;
      if (row >= rows) return static_cast<const float*>(nullptr);
      return tile.q + row / tile.heads * tile.ld_q + row % tile.heads * stride;
    };
    pack_group(queries, load_up_to(stride), stride, packed + row0 * stride);
  }
}

// Keys and values of the positions [begin, begin + count).
template <typename T>
void pack_keys(const CacheHead& cache, int64_t begin, int64_t count, const TileMemory& memory) {
  const auto width = round_up(cache.stride, kPanelRows);
  for (int64_t key = 0; key < count; key += kPanelRows) {
    pack_panel(
        [&](int64_t r) {
          return key + r < count ? slot_of<const T>(cache.k, cache, begin + key + r) : nullptr;
        },
        load_up_to(cache.stride), cache.stride, memory.keys + key * cache.stride);
  }
  const auto load_value = load_up_to(cache.stride);
  for (int64_t key = 0; key < count; ++key) {
    const auto* from = slot_of<const T>(cache.v, cache, begin + key);
    for (int64_t i = 0; i < width; i += kLanes) {
      auto* to = memory.values + i / kPanelRows * kPanelRows * kTileKeys + key * kPanelRows;
      store(to + i % kPanelRows, i < cache.stride ? load_value(from, i) : zeros());
    }
  }
}

// Keys of a block: [begin, end).
struct Seen {
  int64_t begin, end;
};

// The scores of a row become their exponentials where the row sees them, else zeros, in all that
// its group sees. -> what has to multiply the values that were summed before.
inline float weigh(float* scores, Seen row, Seen group, float cap, PartialSoftmax& partial) {
  const auto clear = [&](int64_t begin, int64_t end) {
    if (begin < end) std::memset(scores + begin, 0, (end - begin) * sizeof(float));
  };
  if (row.begin >= row.end) {
    clear(group.begin, group.end);
    return 1.0F;
  }
  clear(group.begin, row.begin);
  clear(row.end, group.end);
  const auto size = row.end - row.begin;
  if (cap != 0.0F) softcap(scores + row.begin, size, cap);
  return extend_softmax(scores + row.begin, size, partial);
}

template <typename T>
void attend_tile_as(const AttentionTile& tile, const CacheHead& cache, float* scratch) {
  const auto rows = tile.tokens * tile.heads;
  const auto groups = round_up(rows, kPackedRows) / kPackedRows;
  const auto width = round_up(cache.stride, kPanelRows);
  const TileMemory memory(scratch, width);
  PartialSoftmax partial[kTileRows];
  for (auto& row : partial) row = {kNothingSeen, 0.0F};
  std::memset(memory.sums, 0, groups * kPackedRows * width * sizeof(float));
  pack_queries(tile, cache.stride, memory.q);

  const auto last = tile.image_end > 0 ? tile.image_end : tile.position + tile.tokens;
  const auto oldest = tile.position - tile.window + 1;
  const auto first = tile.window > 0 && oldest > 0 ? oldest : 0;
  for (auto begin = first; begin < last; begin += kTileKeys) {
    const auto count = last - begin < kTileKeys ? last - begin : kTileKeys;
    pack_keys<T>(cache, begin, count, memory);
    // Of these keys, what the token of a row sees.
    const auto seen_by = [&](int64_t row) -> Seen {
      const auto position = tile.position + row / tile.heads - begin;
      const auto start = tile.window > 0 ? position + 1 - tile.window : 0;
      const auto end = tile.image_end > 0 ? tile.image_end - begin : position + 1;
      return {start > 0 ? start : 0, end < count ? end : count};
    };
    for (int64_t row0 = 0; row0 < rows; row0 += kPackedRows) {
      const auto present = rows - row0 < kPackedRows ? rows - row0 : kPackedRows;
      // Later tokens see later keys.
      const Seen seen{seen_by(row0).begin, seen_by(row0 + present - 1).end};
      if (seen.begin >= seen.end) continue;
      for (auto key = seen.begin / kPanelRows * kPanelRows; key < seen.end; key += kPanelRows) {
        multiply_tile(cache.stride, memory.q + row0 * cache.stride,
                      memory.keys + key * cache.stride, /*add=*/false, memory.scores + key,
                      kTileKeys);
      }
      for (int64_t r = 0; r < present; ++r) {
        auto* const line = memory.scores + r * kTileKeys;
        const auto factor = weigh(line, seen_by(row0 + r), seen, tile.softcap, partial[row0 + r]);
        if (factor == 1.0F) continue;
        auto* const sums = memory.sums + (row0 + r) * width;
        for (int64_t i = 0; i < width; i += kLanes) store(sums + i, load(sums + i) * factor);
      }
      const auto size = seen.end - seen.begin;
      const auto weights = [&](int64_t r) {
        return r < present ? memory.scores + r * kTileKeys + seen.begin : nullptr;
      };
      pack_group(weights, load_up_to(size), size, memory.weights);
      for (int64_t i = 0; i < width; i += kPanelRows) {
        multiply_tile(size, memory.weights, memory.values + i * kTileKeys + seen.begin * kPanelRows,
                      /*add=*/true, memory.sums + row0 * width + i, width);
      }
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    auto* out = tile.out + row / tile.heads * tile.ld_out + row % tile.heads * cache.dim;
    const auto scale = 1.0F / partial[row].sum;
    for (int64_t i = 0; i < cache.dim; ++i) out[i] = memory.sums[row * width + i] * scale;
  }
}

void attend_tile(const AttentionTile& tile, const CacheHead& cache, float* scratch) {
  switch (cache.type) {
    case CacheType::kFloat32:
      return attend_tile_as<float>(tile, cache, scratch);
    case CacheType::kBFloat16:
      return attend_tile_as<BFloat16>(tile, cache, scratch);
  }
}

}  // namespace
}  // namespace gemma::cpu
