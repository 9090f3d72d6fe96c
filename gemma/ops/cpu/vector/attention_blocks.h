#pragma once

#include <gemma/ops/cpu/vector/blocked.h>

// Attention of the tokens of a prompt: a tile of them and of the heads that share keys.
namespace gemma::cpu {
namespace {

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
  TileProducts<T> products(tile, cache, scratch);
  const auto rows = tile.tokens * tile.heads;
  PartialSoftmax partial[kTileRows];
  for (auto& row : partial) row = {kNothingSeen, 0.0F};
  std::memset(products.sums(0), 0, round_up(rows, kTileGroup) * products.width() * sizeof(float));

  const auto last = tile.image_end > 0 ? tile.image_end : tile.position + tile.tokens;
  const auto oldest = tile.position - tile.window + 1;
  // Blocks begin and end at the same positions in every tile, so the result of a row does not
  // depend on its tile.
  const auto first = tile.window > 0 && oldest > 0 ? oldest / kKeyStep * kKeyStep : 0;
  for (auto begin = first, next = first; begin < last; begin = next) {
    next = (begin / kTileKeys + 1) * kTileKeys;
    const auto count = (next < last ? next : last) - begin;
    products.take(begin, count);
    // Of these keys, what the token of a row sees.
    const auto seen_by = [&](int64_t row) -> Seen {
      const auto position = tile.position + row / tile.heads - begin;
      const auto start = tile.window > 0 ? position + 1 - tile.window : 0;
      const auto end = tile.image_end > 0 ? tile.image_end - begin : position + 1;
      return {start > 0 ? start : 0, end < count ? end : count};
    };
    for (int64_t row0 = 0; row0 < rows; row0 += kTileGroup) {
      const auto present = rows - row0 < kTileGroup ? rows - row0 : kTileGroup;
      // Later tokens see later keys.
      const Seen seen{seen_by(row0).begin, seen_by(row0 + present - 1).end};
      if (seen.begin >= seen.end) continue;
      const auto around = products.around(seen);
      products.score(row0, around);
      for (int64_t r = 0; r < present; ++r) {
        const auto factor =
            weigh(products.scores(r), seen_by(row0 + r), around, tile.softcap, partial[row0 + r]);
        if (factor == 1.0F) continue;
        auto* const sums = products.sums(row0 + r);
        for (int64_t i = 0; i < products.width(); i += kLanes) {
          store(sums + i, load(sums + i) * factor);
        }
      }
      products.add_values(row0, present, around);
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    auto* out = tile.out + row / tile.heads * tile.ld_out + row % tile.heads * cache.dim;
    const auto* const sums = products.sums(row);
    const auto scale = 1.0F / partial[row].sum;
    for (int64_t i = 0; i < cache.dim; ++i) out[i] = sums[i] * scale;
  }
}

int64_t tile_scratch(const CacheHead& cache) {
  return cache.type == CacheType::kFloat32 ? TileProducts<float>::scratch(cache.stride)
                                           : TileProducts<BFloat16>::scratch(cache.stride);
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
