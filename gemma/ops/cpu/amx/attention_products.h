#pragma once

#include <gemma/ops/cpu/amx/registers.h>
#include <gemma/ops/cpu/vector/attention_loops.h>

// The products of a block's attention, by AMX.
namespace gemma::cpu {
namespace {

constexpr int64_t kBlockRows = 192;
// Rows that are multiplied together.
constexpr int64_t kBlockMr = kAmxMr;
static_assert(kKeyStep % kTileColumns == 0);

// A block's queries, some keys and values, and what becomes of them.
template <typename T>
class BlockProducts {
 public:
  BlockProducts(const AttentionBlock& block, const CacheHead& cache, float* scratch)
      : cache_(cache),
        width_(round_up(cache.stride, kTileColumns)),
        scores_(scratch),
        sums_(scores_ + kBlockMr * kBlockKeys),
        q_(reinterpret_cast<BFloat16*>(sums_ + kBlockRows * width_)),
        keys_(q_ + kPlanes * kBlockRows * width_),
        values_(keys_ + kCachePlanes * kBlockKeys * width_),
        weights_(values_ + kCachePlanes * kBlockKeys * width_) {
    const auto rows = block.tokens * block.heads;
    auto* out = q_;
    for (int64_t row0 = 0; row0 < rows; row0 += kBlockMr) {
      for (int64_t i = 0; i < width_; i += kTileColumns, out += kPlanes * kTwoTiles) {
        pack_left<kPlanes>(
            [&](int64_t r, auto& planes) {
              if (row0 + r >= rows) return;
              load_planes(query_of(block, cache, row0 + r) + i, cache.stride - i, planes);
            },
            out);
      }
    }
  }

  // Floats that it needs: two numbers of a plane in a float's place.
  static int64_t scratch(int64_t stride) {
    const auto width = round_up(stride, kTileColumns);
    return kBlockMr * kBlockKeys + kBlockRows * width +
           (kPlanes * (kBlockRows * width + kBlockMr * kBlockKeys) +
            2 * kCachePlanes * kBlockKeys * width) /
               2;
  }

  // Takes the keys and values of the positions [begin, begin + count), at most kBlockKeys.
  void take(int64_t begin, int64_t count) {
    auto* out = keys_;
    for (int64_t key = 0; key < count; key += kAmxMr) {
      for (int64_t i = 0; i < width_; i += kTileColumns, out += kCachePlanes * kTwoTiles) {
        pack_right<kCachePlanes>(
            [&](int64_t n, auto& planes) {
              if (key + n >= count) return;
              load_planes(row_at<const T>(cache_.k, cache_, begin + key + n) + i, cache_.stride - i,
                          planes);
            },
            out);
      }
    }
    for (int64_t i = 0; i < width_; i += kTileColumns) {
      // And zeros up to a whole tile.
      for (int64_t key = 0; key < round_up(count, kTileColumns); key += 2) {
        take_values(begin, key, count, i);
      }
    }
  }

  // Those of the keys that are multiplied where these are seen.
  static Seen around(Seen seen) {
    return {seen.begin / kTileColumns * kTileColumns, round_up(seen.end, kTileColumns)};
  }

  // scores = the group's queries times the keys.
  void score(int64_t row0, Seen seen) {
    const TileRegisters registers;
    const auto steps = width_ / kTileColumns;
    for (auto key = seen.begin; key < seen.end; key += kAmxMr) {
      const Sums to{scores_ + key, kBlockKeys};
      multiply_tiles<kPlanes, kCachePlanes>(steps, q_ + kPlanes * row0 * width_,
                                            keys_ + kCachePlanes * key * width_, /*add=*/false, to,
                                            to);
    }
  }

  // The group's sums += the scores of its first `present` rows times the values.
  void add_values(int64_t row0, int64_t present, Seen seen) {
    for (auto key = seen.begin; key < seen.end; key += kTileColumns) {
      pack_left<kPlanes>(
          [&](int64_t r, auto& planes) {
            if (r < present) load_planes(scores(r) + key, kTileColumns, planes);
          },
          weights_ + kPlanes * kBlockMr * (key - seen.begin));
    }
    const TileRegisters registers;
    const auto steps = (seen.end - seen.begin) / kTileColumns;
    for (int64_t i = 0; i < width_; i += kTileColumns) {
      const Sums to{sums(row0) + i, width_};
      multiply_tiles<kPlanes, kCachePlanes>(steps, weights_, values_at(i, seen.begin), /*add=*/true,
                                            to, to);
    }
  }

  // Of a row of the group, kBlockKeys of them.
  float* scores(int64_t r) const { return scores_ + r * kBlockKeys; }
  // Of a row of the tile, `width` of them.
  float* sums(int64_t row) const { return sums_ + row * width_; }
  int64_t width() const { return width_; }

 private:
  static constexpr int kPlanes = 3;
  static constexpr int kCachePlanes = sizeof(T) == sizeof(float) ? 3 : 1;

  // Where a head's numbers from i on have their two tiles for keys from `key` on.
  BFloat16* values_at(int64_t i, int64_t key) const {
    return values_ + kCachePlanes * (i * kBlockKeys + key * kTileColumns);
  }

  // The values of two keys as a row of two tiles: pairs, a number of each.
  void take_values(int64_t begin, int64_t key, int64_t count, int64_t i) {
    Plane planes[2][kCachePlanes] = {};
    for (int64_t k = 0; k < 2 && key + k < count; ++k) {
      load_planes(row_at<const T>(cache_.v, cache_, begin + key + k) + i, cache_.stride - i,
                  planes[k]);
    }
    auto* out = values_at(i, key / kTileColumns * kTileColumns) + key % kTileColumns * kAmxSide;
    for (int p = 0; p < kCachePlanes; ++p, out += kTwoTiles) {
      const auto low = interleave<0>(planes[0][p], planes[1][p]);
      const auto high = interleave<1>(planes[0][p], planes[1][p]);
      std::memcpy(out, &low, sizeof(low));
      std::memcpy(out + kTileNumbers, &high, sizeof(high));
    }
  }

  const CacheHead& cache_;
  int64_t width_;
  float* scores_;
  float* sums_;
  BFloat16* q_;        // As pack_left leaves them, a group of rows after the other.
  BFloat16* keys_;     // As pack_right leaves them.
  BFloat16* values_;   // For each pair of tiles of a head's numbers.
  BFloat16* weights_;  // Scores, as pack_left leaves them.
};

}  // namespace
}  // namespace gemma::cpu
