#pragma once

#include <immintrin.h>

#include <gemma/ops/cpu/vector/simd.h>

// AMX multiplies tiles of bfloat16 numbers and adds in float32, some eight times as fast as vectors
// do.
//
// A float32 number is the sum of three bfloat16 numbers: itself rounded, what is left rounded, and
// what is left then. These are its planes. A product of plane p of one side with plane q of the
// other is some 2^(8 (p + q)) times smaller than the whole, and left out where that is below the
// last bit that counts.
namespace gemma::cpu {
namespace {

// A tile is 16 rows of 32 numbers; four of sums, two by two, are kept in registers.
constexpr int64_t kAmxSide = 16;
constexpr int64_t kTileColumns = 32;
constexpr int64_t kTileNumbers = kAmxSide * kTileColumns;
constexpr int64_t kTwoTiles = 2 * kTileNumbers;
constexpr int64_t kAmxMr = 2 * kAmxSide;

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

// A bfloat16 number is its only plane.
inline Plane load_plane(const BFloat16* from, int64_t count) {
  Plane plane{};
  if (count >= kTileColumns) {
    std::memcpy(&plane, from, sizeof(plane));
  } else {
    std::memcpy(&plane, from, count * sizeof(BFloat16));
  }
  return plane;
}

// The planes of the first `count` of 32 numbers, zeros after them.
template <int kPlanes, typename T>
void load_planes(const T* from, int64_t count, Plane (&planes)[kPlanes]) {
  split(load_numbers(from, count), planes);
}
inline void load_planes(const BFloat16* from, int64_t count, Plane (&planes)[1]) {
  planes[0] = load_plane(from, count);
}

// Pairs of a number of a and one of b: of the first half of them, or the second.
template <int kHalf>
Plane interleave(Plane a, Plane b) {
  uint16_t from[2 * kLanes];
  for (int i = 0; i < kLanes; ++i) {
    from[2 * i] = static_cast<uint16_t>(kHalf * kLanes + i);
    from[2 * i + 1] = static_cast<uint16_t>(kTileColumns + kHalf * kLanes + i);
  }
  return bits<Plane>(
      _mm512_permutex2var_epi16(bits<__m512i>(a), _mm512_loadu_si512(from), bits<__m512i>(b)));
}

// Two tiles, one below the other, as AMX wants the left side of a product, for each plane.
// read(r, planes) gives 32 numbers of row r < kAmxMr.
template <int kPlanes, typename Read>
void pack_left(const Read& read, BFloat16* out) {
  for (int64_t r = 0; r < kAmxMr; ++r) {
    Plane planes[kPlanes] = {};
    read(r, planes);
    for (int p = 0; p < kPlanes; ++p) {
      std::memcpy(out + p * kTwoTiles + r * kTileColumns, &planes[p], sizeof(Plane));
    }
  }
}

// Two tiles, one beside the other, as AMX wants the right side: a row of a tile has pairs of
// consecutive numbers, one of each of the kAmxSide columns that the product gets. read(n, planes)
// gives 32 numbers of column n < kAmxMr.
template <int kPlanes, typename Read>
void pack_right(const Read& read, BFloat16* out) {
  for (int64_t tile = 0; tile < 2; ++tile) {
    Floats columns[kPlanes][kAmxSide];
    for (int64_t n = 0; n < kAmxSide; ++n) {
      Plane planes[kPlanes] = {};
      read(tile * kAmxSide + n, planes);
      for (int p = 0; p < kPlanes; ++p) columns[p][n] = planes[p];
    }
    for (int p = 0; p < kPlanes; ++p) {
      transpose(columns[p]);
      std::memcpy(out + p * kTwoTiles + tile * kTileNumbers, columns[p], sizeof(columns[p]));
    }
  }
}

// Eight tiles of 16 rows of 64 bytes, as _tile_loadconfig wants them described.
struct alignas(64) TileShapes {
  TileShapes() {
    for (int i = 0; i < 8; ++i) {
      row_bytes[i] = 64;
      rows[i] = kAmxSide;
    }
  }
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// GCC does not know that instructions of AMX read memory: what was written before this is there.
inline void finish_writes() { asm volatile("" ::: "memory"); }

// AMX's registers, ready while it lives.
class TileRegisters {
 public:
  TileRegisters() {
    const TileShapes shapes;
    finish_writes();
    _tile_loadconfig(&shapes);
  }
  ~TileRegisters() { _tile_release(); }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
};

// Four tiles of sums, two by two, rows `stride` floats apart.
struct Sums {
  float* data;
  int64_t stride;

  float* tile(int64_t row, int64_t column) const {
    return data + row * kAmxSide * stride + column * kAmxSide;
  }
};

// to = (from +) the products of `steps` steps of packed left and right sides, each with its planes.
template <int kPlanes, int kRightPlanes>
void multiply_tiles(
    int64_t steps, const BFloat16* a, const BFloat16* b, bool add, Sums from, Sums to) {
  constexpr int kRow = kTileColumns * sizeof(BFloat16);
  constexpr int64_t kFloat = sizeof(float);
  finish_writes();
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
    for (int q = 0; q < kRightPlanes; ++q) {
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
    b += kRightPlanes * kTwoTiles;
  }
  _tile_stored(0, to.tile(0, 0), to.stride * kFloat);
  _tile_stored(1, to.tile(0, 1), to.stride * kFloat);
  _tile_stored(2, to.tile(1, 0), to.stride * kFloat);
  _tile_stored(3, to.tile(1, 1), to.stride * kFloat);
}

}  // namespace
}  // namespace gemma::cpu
