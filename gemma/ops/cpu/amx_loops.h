#pragma once

#include <immintrin.h>

#include <gemma/ops/cpu/int4_loops.h>
#include <gemma/ops/cpu/tiles.h>

// Products of many rows by AMX, which multiplies tiles of bfloat16 numbers and adds in float32,
// some eight times as fast as vectors do.
//
// A float32 number is the sum of three bfloat16 numbers: itself rounded, what is left rounded, and
// what is left then. These are its planes. Activations for weights of floats have all three, so
// that nothing is lost; for integer weights two, some 17 bits. Weights have as many as their type
// needs. A product of plane p with plane q is 2^(-8 (p + q)) times as large as the whole, and left
// out where that is below the last bit that counts.
namespace gemma::cpu {
namespace {

// A tile is 16 rows of 32 numbers; four of sums, two by two, are kept in registers.
constexpr int64_t kTileSide = 16;
constexpr int64_t kTileColumns = 32;
constexpr int64_t kTileNumbers = kTileSide * kTileColumns;
constexpr int64_t kTwoTiles = 2 * kTileNumbers;

constexpr int64_t kManyRows = 2 * kTileSide;
// Activations, which do not stay in the second cache, are used for so many weights when they come;
// the panel's weights do, most_columns of each, and so do the sums of a block of rows.
constexpr int64_t kManyPanelRows = 16 * kTileSide;
constexpr int64_t kBlockRows = 16 * kManyRows;
constexpr int64_t kMostColumns = 1024;
// Sums, and weights, two numbers in a float's place.
constexpr int64_t kPanelScratch = kBlockRows * kManyPanelRows + kManyPanelRows * kMostColumns / 2;

constexpr int activation_planes(WeightType type) { return is_float(type) ? 3 : 2; }
constexpr int weight_planes(WeightType type) {
  switch (type) {
    case WeightType::kFloat32:
      return 3;
    case WeightType::kFloat16:
    case WeightType::kInt4:
      return 2;
    default:
      return 1;
  }
}

// Calls use(begin, width) for parts of the columns, of equal size and whole tiles.
template <typename Use>
void each_part(int64_t columns, WeightType type, const Use& use) {
  const auto most = kMostColumns / weight_planes(type) / kTileColumns * kTileColumns;
  const auto blocks = (columns + most - 1) / most;
  const auto block = round_up((columns + blocks - 1) / blocks, kTileColumns);
  for (int64_t begin = 0; begin < columns; begin += block) {
    use(begin, columns - begin < block ? columns - begin : block);
  }
}

// 32 consecutive numbers; as many bfloat16.
struct Numbers {
  Floats low, high;
};
using Plane = Floats;

inline Plane round_plane(const Numbers& x) {
  return bits<Plane>(_mm512_cvtne2ps_pbh(x.high, x.low));
}

// What `plane` leaves of x; nothing where that is not a number: infinity is in its first plane.
inline Numbers without(const Numbers& x, Plane plane) {
  const auto* const halves = reinterpret_cast<const BFloat16*>(&plane);
  const auto rest = [](Floats whole, Floats rounded) -> Floats {
    const auto left = _mm512_sub_ps(whole, rounded);
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(left, left, _CMP_ORD_Q), left);
  };
  return {rest(x.low, load(halves)), rest(x.high, load(halves + kLanes))};
}

template <int kPlanes>
void split(Numbers x, Plane (&planes)[kPlanes]) {
  for (int p = 0; p < kPlanes; ++p) {
    planes[p] = round_plane(x);
    if (p + 1 < kPlanes) x = without(x, planes[p]);
  }
}

// The first `count` of 32 numbers, zeros after them.
template <typename T>
Numbers load_numbers(const T* from, int64_t count) {
  if (count >= kTileColumns) return {load(from), load(from + kLanes)};
  T padded[kTileColumns] = {};
  std::memcpy(padded, from, count * sizeof(T));
  return {load(padded), load(padded + kLanes)};
}

int64_t packed_size(int64_t rows, int64_t columns, WeightType type) {
  return round_up(rows, kManyRows) * round_up(columns, kTileColumns) * activation_planes(type) *
         static_cast<int64_t>(sizeof(BFloat16));
}

// Blocks of columns; in a block groups of kManyRows rows; in a group steps of kTileColumns columns;
// in a step planes; in a plane two tiles.
template <int kPlanes>
void pack_planes(const float* x,
                 int64_t rows,
                 int64_t columns,
                 int64_t group,
                 WeightType type,
                 BFloat16* packed) {
  const auto padded_rows = round_up(rows, kManyRows);
  each_part(columns, type, [&](int64_t begin, int64_t width) {
    auto* out = packed +
                (begin * padded_rows + group * kManyRows * round_up(width, kTileColumns)) * kPlanes;
    for (int64_t i = 0; i < width; i += kTileColumns, out += kPlanes * kTwoTiles) {
      for (int64_t r = 0; r < kManyRows; ++r) {
        const auto row = group * kManyRows + r;
        Plane planes[kPlanes] = {};
        if (row < rows) split(load_numbers(x + row * columns + begin + i, width - i), planes);
        for (int p = 0; p < kPlanes; ++p) {
          std::memcpy(out + p * kTwoTiles + r * kTileColumns, &planes[p], sizeof(Plane));
        }
      }
    }
  });
}

void pack(const float* x,
          int64_t rows,
          int64_t columns,
          int64_t group,
          WeightType type,
          std::byte* packed) {
  auto* const out = reinterpret_cast<BFloat16*>(packed);
  if (is_float(type)) return pack_planes<3>(x, rows, columns, group, type, out);
  pack_planes<2>(x, rows, columns, group, type, out);
}

// Calls use(planes, read): of how many planes the weights are, a Constant, and what reads `count`
// numbers of a row from a column on, at most 32, into them.
template <typename Use>
void with_planes(const Matrix& w, const Use& use) {
  const auto split_as = [&w](const auto* data) {
    return [data, &w](int64_t row, int64_t column, int64_t count, auto& planes) {
      split(load_numbers(data + row * w.columns + column, count), planes);
    };
  };
  switch (w.type) {
    case WeightType::kFloat32:
      return use(Constant<weight_planes(WeightType::kFloat32)>(),
                 split_as(static_cast<const float*>(w.data)));
    case WeightType::kFloat16:
      return use(Constant<weight_planes(WeightType::kFloat16)>(),
                 split_as(static_cast<const Float16*>(w.data)));
    case WeightType::kBFloat16:
      return use(Constant<weight_planes(WeightType::kBFloat16)>(),
                 split_as(static_cast<const BFloat16*>(w.data)));
    case WeightType::kInt8:
      return use(Constant<weight_planes(WeightType::kInt8)>(),
                 split_as(static_cast<const int8_t*>(w.data)));
    case WeightType::kInt4:
      return use(Constant<weight_planes(WeightType::kInt4)>(),
                 [&w](int64_t row, int64_t column, int64_t count, auto& planes) {
                   float numbers[kTileColumns] = {};
                   read_int4(w, row, column, count, numbers);
                   split(load_numbers(numbers, kTileColumns), planes);
                 });
  }
}

// The panel's columns [begin, begin + width): pairs of tiles of weight rows; in a pair steps of
// kTileColumns columns, planes, and two tiles, as AMX wants the right side of a product: pairs of
// columns, each with the kTileSide rows.
template <int kPlanes, typename Read>
void pack_panel_planes(
    const Matrix& w, int64_t panel, int64_t begin, int64_t width, const Read& read, BFloat16* out) {
  const auto first = panel * kManyPanelRows;
  for (int64_t pair = 0; pair < kManyPanelRows; pair += 2 * kTileSide) {
    if (first + pair >= w.rows) return;
    for (int64_t i = 0; i < width; i += kTileColumns, out += kPlanes * kTwoTiles) {
      const auto count = width - i < kTileColumns ? width - i : kTileColumns;
      for (int64_t tile = 0; tile < 2; ++tile) {
        Floats columns[kPlanes][kTileSide];
        for (int64_t r = 0; r < kTileSide; ++r) {
          const auto row = first + pair + tile * kTileSide + r;
          Plane planes[kPlanes] = {};
          if (row < w.rows) read(row, begin + i, count, planes);
          for (int p = 0; p < kPlanes; ++p) columns[p][r] = planes[p];
        }
        for (int p = 0; p < kPlanes; ++p) {
          transpose(columns[p]);
          std::memcpy(out + p * kTwoTiles + tile * kTileNumbers, columns[p], sizeof(columns[p]));
        }
      }
    }
  }
}

// Eight tiles of 16 rows of 64 bytes, as _tile_loadconfig wants them described.
struct alignas(64) TileShapes {
  TileShapes() {
    for (int i = 0; i < 8; ++i) {
      row_bytes[i] = 64;
      rows[i] = kTileSide;
    }
  }
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Four tiles of sums, two by two, rows `stride` floats apart.
struct Sums {
  float* data;
  int64_t stride;

  float* tile(int64_t row, int64_t column) const {
    return data + row * kTileSide * stride + column * kTileSide;
  }
};

// to = (from +) the products of `steps` steps of packed activations and weights.
template <int kPlanes, int kWeightPlanes>
void multiply_tiles(
    int64_t steps, const BFloat16* a, const BFloat16* b, bool add, Sums from, Sums to) {
  constexpr int kRow = kTileColumns * sizeof(BFloat16);
  constexpr int64_t kFloat = sizeof(float);
  if (add) {
    _tile_loadd(0, from.tile(0, 0), from.stride * kFloat);
    _tile_loadd(1, from.tile(0, 1), from.stride * kFloat);
    _tile_loadd(2, from.tile(1, 0), from.stride * kFloat);
    _tile_loadd(3, from.tile(1, 1), from.stride * kFloat);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 3
    for (int q = 0; q < kWeightPlanes; ++q) {
      _tile_loadd(6, b + q * kTwoTiles, kRow);
      _tile_loadd(7, b + q * kTwoTiles + kTileNumbers, kRow);
#pragma GCC unroll 3
      for (int p = 0; p + q < kPlanes; ++p) {
        _tile_loadd(4, a + p * kTwoTiles, kRow);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + p * kTwoTiles + kTileNumbers, kRow);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    a += kPlanes * kTwoTiles;
    b += kWeightPlanes * kTwoTiles;
  }
  _tile_stored(0, to.tile(0, 0), to.stride * kFloat);
  _tile_stored(1, to.tile(0, 1), to.stride * kFloat);
  _tile_stored(2, to.tile(1, 0), to.stride * kFloat);
  _tile_stored(3, to.tile(1, 1), to.stride * kFloat);
}

// y [rows, columns] = sums, of int8 times the scales of w's rows from `first` on.
inline void finish_sums(
    Sums sums, int64_t rows, int64_t columns, const Matrix& w, int64_t first, Sums y) {
  Floats scales[2] = {splat(1.0F), splat(1.0F)};
  if (w.type == WeightType::kInt8) {
    float of_rows[kManyRows] = {};
    for (int64_t n = 0; n < columns; ++n) of_rows[n] = row_scale(w, first + n);
    scales[0] = load(of_rows);
    scales[1] = load(of_rows + kLanes);
  }
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t n = 0; n < columns; n += kLanes) {
      const auto v = load(sums.data + m * sums.stride + n) * scales[n / kLanes];
      auto* const to = y.data + m * y.stride + n;
      if (columns - n >= kLanes) {
        store(to, v);
      } else {
        store_part(to, v, columns - n);
      }
    }
  }
}

template <int kPlanes, int kWeightPlanes, typename Read>
void multiply_planes(const PackedRows& x,
                     const Matrix& w,
                     int64_t panel,
                     const Read& read,
                     float* y,
                     int64_t ldy,
                     float* scratch) {
  constexpr int64_t kBlockSums = kManyRows * kManyRows;
  auto* const weights = reinterpret_cast<BFloat16*>(scratch + kBlockRows * kManyPanelRows);
  const auto* const packed = reinterpret_cast<const BFloat16*>(x.data);
  const auto padded_rows = round_up(x.rows, kManyRows);
  const auto rows = x.end - x.begin;
  const auto first = panel * kManyPanelRows;
  const auto columns = w.rows - first < kManyPanelRows ? w.rows - first : kManyPanelRows;
  each_part(w.columns, w.type, [&](int64_t begin, int64_t width) {
    pack_panel_planes<kWeightPlanes>(w, panel, begin, width, read, weights);
    const auto steps = (width + kTileColumns - 1) / kTileColumns;
    const bool last = begin + width == w.columns;
    for (int64_t m = 0; m < rows; m += kManyRows) {
      const auto* const a =
          packed + (begin * padded_rows + (x.begin + m) * steps * kTileColumns) * kPlanes;
      const auto high = rows - m < kManyRows ? rows - m : kManyRows;
      for (int64_t n = 0; n < columns; n += kManyRows) {
        const auto* const b = weights + n * steps * kTileColumns * kWeightPlanes;
        const auto wide = columns - n < kManyRows ? columns - n : kManyRows;
        const Sums sums{scratch + m * kManyPanelRows + n / kManyRows * kBlockSums, kManyRows};
        const Sums out{y + m * ldy + n, ldy};
        const bool whole = last && high == kManyRows && wide == kManyRows;
        const auto& to = whole ? out : sums;
        multiply_tiles<kPlanes, kWeightPlanes>(steps, a, b, begin > 0, sums, to);
        if (last && (!whole || w.type == WeightType::kInt8)) {
          finish_sums(to, high, wide, w, first + n, out);
        }
      }
    }
  });
}

void multiply_many(
    const PackedRows& x, const Matrix& w, int64_t panel, float* y, int64_t ldy, float* scratch) {
  const TileShapes shapes;
  _tile_loadconfig(&shapes);
  with_planes(w, [&](auto planes, const auto& read) {
    if (is_float(w.type)) {
      multiply_planes<3, planes>(x, w, panel, read, y, ldy, scratch);
    } else if constexpr (planes <= 2) {
      multiply_planes<2, planes>(x, w, panel, read, y, ldy, scratch);
    }
  });
  _tile_release();
}

}  // namespace
}  // namespace gemma::cpu
