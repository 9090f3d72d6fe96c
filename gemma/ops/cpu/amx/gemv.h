#pragma once

#include <gemma/ops/cpu/amx/registers.h>
#include <gemma/ops/cpu/vector/gemv.h>

// Products of few rows of activations with weights of bfloat16, by AMX: the weights are the left
// side as they lie in memory, so nothing of them is packed; the planes of the activations are the
// columns of the right side. Other weights, and columns that are no whole tiles, go by vectors.
namespace gemma::cpu {
namespace {

constexpr int64_t kTilesPlanes = 3;
// Rows of x that are multiplied with some weights at once: six tiles of sums, one of weights and
// one of activations are all that there are.
constexpr int64_t kTilesRows = 32;
constexpr int64_t kMostTiles = 6;
static_assert(kTilesRows * kTilesPlanes == kMostTiles * kAmxSide);
// Rows that are packed together: their planes fill whole tiles.
constexpr int64_t kTilesMr = kLanes;
static_assert(kTilesMr * kTilesPlanes % kAmxSide == 0);

constexpr bool by_tiles(WeightType type, int64_t columns) {
  return type == WeightType::kBFloat16 && columns % kTileColumns == 0;
}

// Tiles of the planes of `rows` rows.
constexpr int64_t tiles_of(int64_t rows) { return (rows * kTilesPlanes + kAmxSide - 1) / kAmxSide; }

int64_t tiles_gemv_size(int64_t rows, int64_t columns, WeightType type) {
  if (!by_tiles(type, columns)) return gemv_size(rows, columns, type);
  constexpr auto kTile = kTileNumbers * static_cast<int64_t>(sizeof(BFloat16));
  return (rows / kTilesRows * kMostTiles + tiles_of(rows % kTilesRows)) * columns / kTileColumns *
         kTile;
}

// Groups of kTilesRows rows; in a group steps of kTileColumns columns; in a step tiles. The columns
// of the tiles are the first planes of kTilesMr rows, their second ones, their third ones, and
// those of the next rows.
void tiles_gemv_pack(const float* x,
                     int64_t rows,
                     int64_t columns,
                     int64_t group,
                     WeightType type,
                     std::byte* packed) {
  if (!by_tiles(type, columns)) {
    for (auto part = group * kTilesMr / kGemvRows;
         part < (group + 1) * kTilesMr / kGemvRows && part * kGemvRows < rows; ++part) {
      gemv_pack(x, rows, columns, part, type, packed);
    }
    return;
  }
  const auto first = group * kTilesMr;
  const auto count = rows - first < kTilesMr ? rows - first : kTilesMr;
  const auto together = first / kTilesRows * kTilesRows;
  const auto left = rows - together < kTilesRows ? rows - together : kTilesRows;
  auto* out = reinterpret_cast<BFloat16*>(packed) +
              together / kTilesRows * kMostTiles * columns / kTileColumns * kTileNumbers +
              tiles_of(first - together) * kTileNumbers;
  for (int64_t i = 0; i < columns; i += kTileColumns, out += tiles_of(left) * kTileNumbers) {
    Floats sides[kTilesMr * kTilesPlanes] = {};
    for (int64_t r = 0; r < count; ++r) {
      Plane planes[kTilesPlanes];
      load_planes(x + (first + r) * columns + i, kTileColumns, planes);
      for (int64_t p = 0; p < kTilesPlanes; ++p) sides[p * count + r] = planes[p];
    }
    for (int64_t tile = 0; tile < tiles_of(count); ++tile) {
      Floats side[kAmxSide];
      std::memcpy(side, sides + tile * kAmxSide, sizeof(side));
      transpose(side);
      std::memcpy(out + tile * kTileNumbers, side, sizeof(side));
    }
  }
}

// Multiplies a tile of weight rows, which load(step) brings into register 7, with kTiles tiles of
// activations, `steps` steps of columns -> sums [weight rows][kTiles][kAmxSide].
template <int kTiles, typename Load>
void multiply_few(const BFloat16* x, int64_t steps, const Load& load, float* sums) {
  constexpr int kRow = kTileColumns * sizeof(BFloat16);
  _tile_zero(0);
  if constexpr (kTiles > 1) _tile_zero(1);
  if constexpr (kTiles > 2) _tile_zero(2);
  if constexpr (kTiles > 3) _tile_zero(3);
  if constexpr (kTiles > 4) _tile_zero(4);
  if constexpr (kTiles > 5) _tile_zero(5);
  for (int64_t step = 0; step < steps; ++step) {
    load(step);
    _tile_loadd(6, x, kRow);
    _tile_dpbf16ps(0, 7, 6);
    if constexpr (kTiles > 1) {
      _tile_loadd(6, x + kTileNumbers, kRow);
      _tile_dpbf16ps(1, 7, 6);
    }
    if constexpr (kTiles > 2) {
      _tile_loadd(6, x + 2 * kTileNumbers, kRow);
      _tile_dpbf16ps(2, 7, 6);
    }
    if constexpr (kTiles > 3) {
      _tile_loadd(6, x + 3 * kTileNumbers, kRow);
      _tile_dpbf16ps(3, 7, 6);
    }
    if constexpr (kTiles > 4) {
      _tile_loadd(6, x + 4 * kTileNumbers, kRow);
      _tile_dpbf16ps(4, 7, 6);
    }
    if constexpr (kTiles > 5) {
      _tile_loadd(6, x + 5 * kTileNumbers, kRow);
      _tile_dpbf16ps(5, 7, 6);
    }
    x += kTiles * kTileNumbers;
  }
  constexpr int kSumRow = kTiles * kAmxSide * sizeof(float);
  _tile_stored(0, sums, kSumRow);
  if constexpr (kTiles > 1) _tile_stored(1, sums + kAmxSide, kSumRow);
  if constexpr (kTiles > 2) _tile_stored(2, sums + 2 * kAmxSide, kSumRow);
  if constexpr (kTiles > 3) _tile_stored(3, sums + 3 * kAmxSide, kSumRow);
  if constexpr (kTiles > 4) _tile_stored(4, sums + 4 * kAmxSide, kSumRow);
  if constexpr (kTiles > 5) _tile_stored(5, sums + 5 * kAmxSide, kSumRow);
  finish_writes();
}

// Some weight rows, `apart` rows from one to the next.
struct WeightTile {
  const BFloat16* first;
  int64_t columns;
  int64_t rows;  // At most kAmxSide.
  int64_t apart;
};

// The sums of a tile of weights with at most kTilesRows rows of x, three for each of these: kTiles
// tiles.
template <int kTiles>
void multiply_tile(const BFloat16* x, const WeightTile& w, float* sums) {
  const auto steps = w.columns / kTileColumns;
  if (w.rows == kAmxSide) {
    const auto stride = w.apart * w.columns * static_cast<int64_t>(sizeof(BFloat16));
    return multiply_few<kTiles>(
        x, steps, [&](int64_t step) { _tile_loadd(7, w.first + step * kTileColumns, stride); },
        sums);
  }
  // Nothing behind the last weight is read.
  alignas(64) BFloat16 tile[kTileNumbers] = {};
  const auto load = [&](int64_t step) {
    for (int64_t n = 0; n < w.rows; ++n) {
      std::memcpy(tile + n * kTileColumns, w.first + n * w.apart * w.columns + step * kTileColumns,
                  kTileColumns * sizeof(BFloat16));
    }
    finish_writes();
    _tile_loadd(7, tile, kTileColumns * sizeof(BFloat16));
  };
  multiply_few<kTiles>(x, steps, load, sums);
}

// Sums of kAmxSide tiles of weights with at most kTilesRows rows of x, on their way to y, whose
// rows are so far apart that single numbers would be written to memory again and again.
class TileSums {
 public:
  explicit TileSums(int64_t rows) : rows_(rows), width_(round_up(rows, kLanes)) {}

  // For rows [first, first + kLanes), of weight row n of a tile.
  void keep(int64_t tile, int64_t n, int64_t first, Floats sums) {
    store(sums_ + (n * kAmxSide + tile) * width_ + first, sums);
  }

  // y[m * ldy + n * apart + tile] of the first `tiles` tiles, which have `count` weight rows.
  void write(int64_t tiles, int64_t count, int64_t apart, float* y, int64_t ldy) const {
    const auto mask = static_cast<__mmask16>((1U << tiles) - 1);
    for (int64_t n = 0; n < count; ++n) {
      for (int64_t first = 0; first < rows_; first += kLanes) {
        Floats side[kAmxSide];
        for (int64_t tile = 0; tile < kAmxSide; ++tile) {
          const auto* const from = sums_ + (n * kAmxSide + tile) * width_ + first;
          side[tile] = tile < tiles ? load(from) : zeros();
        }
        transpose(side);
        for (int64_t m = first; m < rows_ && m < first + kLanes; ++m) {
          _mm512_mask_storeu_ps(y + m * ldy + n * apart, mask, side[m - first]);
        }
      }
    }
  }

 private:
  int64_t rows_, width_;
  alignas(64) float sums_[kAmxSide * kAmxSide * kTilesRows];
};

// At most kTilesRows rows of x with a tile of weights.
template <int kTiles>
void multiply_group(
    const BFloat16* x, int64_t rows, const WeightTile& w, int64_t tile, TileSums& kept) {
  constexpr int64_t kWidth = kTiles * kAmxSide;
  // What is read behind the last sum counts nothing.
  alignas(64) float sums[kAmxSide * kWidth + kLanes];
  multiply_tile<kTiles>(x, w, sums);
  for (int64_t n = 0; n < w.rows; ++n) {
    for (int64_t first = 0; first < rows; first += kTilesMr) {
      const auto count = rows - first < kTilesMr ? rows - first : kTilesMr;
      const auto* const planes = sums + n * kWidth + first * kTilesPlanes;
      kept.keep(tile, n, first, load(planes) + (load(planes + count) + load(planes + 2 * count)));
    }
  }
}

// All rows of x with `tiles` tiles of weights, at most kAmxSide, each a row after the one before.
inline void multiply_rows(
    const std::byte* x, int64_t rows, const WeightTile& w, int64_t tiles, float* y, int64_t ldy) {
  const auto* group = reinterpret_cast<const BFloat16*>(x);
  for (int64_t m = 0; m < rows; m += kTilesRows) {
    const auto together = rows - m < kTilesRows ? rows - m : kTilesRows;
    TileSums sums(together);
    with_count<kMostTiles>(tiles_of(together), [&](auto of_x) {
      for (int64_t tile = 0; tile < tiles; ++tile) {
        multiply_group<of_x>(group, together,
                             {w.first + tile * w.columns, w.columns, w.rows, w.apart}, tile, sums);
      }
    });
    sums.write(tiles, w.rows, w.apart, y + m * ldy, ldy);
    group += kMostTiles * w.columns * kAmxSide;
  }
}

void tiles_gemv(const std::byte* x,
                int64_t rows,
                const WeightView& w,
                int64_t begin,
                int64_t end,
                float* y,
                int64_t ldy) {
  if (!by_tiles(w.type, w.columns)) return gemv(x, rows, w, begin, end, y, ldy);
  const TileRegisters registers;
  const auto* const weights = static_cast<const BFloat16*>(w.data);
  const auto multiply = [&](int64_t n, int64_t count, int64_t apart, int64_t tiles) {
    multiply_rows(x, rows, {weights + n * w.columns, w.columns, count, apart}, tiles, y + n - begin,
                  ldy);
  };
  // As in `stretches`: rows that are read together are far apart. A Xeon with AMX then read weights
  // for one row as fast as it reads memory; asking for them ahead gained nothing, and rows one
  // below the other took 1.6 times as long.
  const auto apart = (end - begin) / kAmxSide;
  for (int64_t i = 0; i < apart; i += kAmxSide) {
    multiply(begin + i, kAmxSide, apart, apart - i < kAmxSide ? apart - i : kAmxSide);
  }
  const auto done = begin + apart * kAmxSide;
  if (done < end) multiply(done, end - done, 1, 1);
}

}  // namespace
}  // namespace gemma::cpu
