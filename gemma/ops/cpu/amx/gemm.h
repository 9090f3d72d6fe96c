#pragma once

#include <gemma/ops/cpu/amx/registers.h>
#include <gemma/ops/cpu/vector/block_loops.h>
#include <gemma/ops/cpu/vector/blocking.h>
#include <gemma/ops/cpu/vector/int4_loops.h>

// Products of many rows of activations with weights, by AMX. Activations for weights of floats have
// all three planes, so that nothing is lost; for integer weights two, some 17 bits. Weights have as
// many as their type needs.
namespace gemma::cpu {
namespace {

constexpr int64_t kGemmMr = kAmxMr;
// Activations do not stay in the second cache, so each is used for this many weights when it is
// read. The panel's weights stay, kMostColumns of each, and so do the sums of a block of rows.
constexpr int64_t kGemmNr = 8 * kAmxMr;
constexpr int64_t kGemmMc = 16 * kGemmMr;
constexpr int64_t kMostColumns = 1024;
// Sums, and weights, two numbers in a float's place.
constexpr int64_t kGemmScratch = kGemmMc * kGemmNr + kGemmNr * kMostColumns / 2;

constexpr int activation_planes(WeightType type) { return is_float(type) ? 3 : 2; }
constexpr int weight_planes(WeightType type) {
  switch (type) {
    case WeightType::kFloat32:
      return 3;
    case WeightType::kFloat16:
    case WeightType::kInt4:
    case WeightType::kBlocks:
      return 2;
    default:
      return 1;
  }
}

// Columns of a panel of weights that stay in the second cache.
constexpr int64_t most_columns(WeightType type) {
  return kMostColumns / weight_planes(type) / kTileColumns * kTileColumns;
}
static_assert(kTileColumns == kGroup);

int64_t packed_size(int64_t rows, int64_t columns, WeightType type) {
  return round_up(rows, kGemmMr) * round_up(columns, kTileColumns) * activation_planes(type) *
         static_cast<int64_t>(sizeof(BFloat16));
}

// Blocks of columns; in a block groups of kGemmMr rows; in a group steps of kTileColumns columns;
// in a step planes; in a plane two tiles.
template <int kPlanes>
void pack_planes(const float* x,
                 int64_t rows,
                 int64_t columns,
                 int64_t group,
                 WeightType type,
                 BFloat16* packed) {
  const auto padded_rows = round_up(rows, kGemmMr);
  const auto pack_block = [&](int64_t begin, int64_t width) {
    auto* out =
        packed + (begin * padded_rows + group * kGemmMr * round_up(width, kTileColumns)) * kPlanes;
    for (int64_t i = 0; i < width; i += kTileColumns, out += kPlanes * kTwoTiles) {
      pack_left<kPlanes>(
          [&](int64_t r, auto& planes) {
            const auto row = group * kGemmMr + r;
            if (row < rows) load_planes(x + row * columns + begin + i, width - i, planes);
          },
          out);
    }
  };
  each_block(columns, pack_block, most_columns(type));
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

// Memory brings the kTileColumns numbers into the second cache.
template <typename T>
void ask_for_numbers(const T* from) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < kTileColumns; i += kLine) prefetch_weights(from + i);
}

// Calls use(planes, read): of how many planes the weights are, a Constant, and what reads `count`
// numbers of a row from a column on, at most 32, into them. What is read so far apart comes from
// memory one line after the other, so those of the rows that are packed next are asked for.
template <typename Use>
void with_planes(const WeightView& w, const Use& use) {
  const auto split_as = [&w](const auto* data) {
    return [data, &w](int64_t row, int64_t column, int64_t count, auto& planes) {
      ask_for_numbers(data + (row + kAmxMr) * w.columns + column);
      load_planes(data + row * w.columns + column, count, planes);
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
                   const auto* const bytes = static_cast<const uint8_t*>(w.data);
                   prefetch_weights(bytes + ((row + kAmxMr) * w.columns + column) / 2);
                   float numbers[kTileColumns] = {};
                   read_int4(w, row, column, count, numbers);
                   load_planes(numbers, kTileColumns, planes);
                 });
    case WeightType::kBlocks:
      return use(Constant<weight_planes(WeightType::kBlocks)>(),
                 [&w](int64_t row, int64_t column, int64_t count, auto& planes) {
                   float numbers[kTileColumns] = {};
                   read_blocks(w, row, column, count, numbers);
                   load_planes(numbers, kTileColumns, planes);
                 });
  }
}

// The panel's columns [begin, begin + width): pairs of tiles of weight rows; in a pair steps of
// kTileColumns columns; in a step planes; in a plane two tiles.
template <int kPlanes, typename Read>
void pack_panel_planes(const WeightView& w,
                       int64_t panel,
                       int64_t begin,
                       int64_t width,
                       const Read& read,
                       BFloat16* out) {
  const auto end = (panel + 1) * kGemmNr;
  for (auto first = panel * kGemmNr; first < end && first < w.rows; first += kAmxMr) {
    for (int64_t i = 0; i < width; i += kTileColumns, out += kPlanes * kTwoTiles) {
      const auto count = width - i < kTileColumns ? width - i : kTileColumns;
      pack_right<kPlanes>(
          [&](int64_t r, auto& planes) {
            if (first + r < w.rows) read(first + r, begin + i, count, planes);
          },
          out);
    }
  }
}

// y [rows, columns] = sums, of int8 times the scales of w's rows from `first` on.
inline void finish_sums(
    Sums sums, int64_t rows, int64_t columns, const WeightView& w, int64_t first, Sums y) {
  Floats scales[2] = {splat(1.0F), splat(1.0F)};
  if (w.type == WeightType::kInt8) {
    float of_rows[kGemmMr] = {};
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
                     const WeightView& w,
                     int64_t panel,
                     const Read& read,
                     float* y,
                     int64_t ldy,
                     float* scratch) {
  constexpr int64_t kBlockSums = kGemmMr * kGemmMr;
  auto* const weights = reinterpret_cast<BFloat16*>(scratch + kGemmMc * kGemmNr);
  const auto* const packed = reinterpret_cast<const BFloat16*>(x.data);
  const auto padded_rows = round_up(x.rows, kGemmMr);
  const auto rows = x.end - x.begin;
  const auto first = panel * kGemmNr;
  const auto columns = w.rows - first < kGemmNr ? w.rows - first : kGemmNr;
  const auto multiply_block = [&](int64_t begin, int64_t width) {
    pack_panel_planes<kWeightPlanes>(w, panel, begin, width, read, weights);
    const auto steps = (width + kTileColumns - 1) / kTileColumns;
    const bool last = begin + width == w.columns;
    for (int64_t m = 0; m < rows; m += kGemmMr) {
      const auto* const a =
          packed + (begin * padded_rows + (x.begin + m) * steps * kTileColumns) * kPlanes;
      const auto high = rows - m < kGemmMr ? rows - m : kGemmMr;
      for (int64_t n = 0; n < columns; n += kGemmMr) {
        const auto* const b = weights + n * steps * kTileColumns * kWeightPlanes;
        const auto wide = columns - n < kGemmMr ? columns - n : kGemmMr;
        const Sums sums{scratch + m * kGemmNr + n / kGemmMr * kBlockSums, kGemmMr};
        const Sums out{y + m * ldy + n, ldy};
        const bool whole = last && high == kGemmMr && wide == kGemmMr;
        const auto& to = whole ? out : sums;
        multiply_tiles<kPlanes, kWeightPlanes>(steps, a, b, begin > 0, sums, to);
        if (last && (!whole || w.type == WeightType::kInt8)) {
          finish_sums(to, high, wide, w, first + n, out);
        }
      }
    }
  };
  each_block(w.columns, multiply_block, most_columns(w.type));
}

void gemm(const PackedRows& x,
          const WeightView& w,
          int64_t panel,
          float* y,
          int64_t ldy,
          float* scratch) {
  const TileRegisters registers;
  with_planes(w, [&](auto planes, const auto& read) {
    if (is_float(w.type)) {
      multiply_planes<3, planes>(x, w, panel, read, y, ldy, scratch);
    } else if constexpr (planes <= 2) {
      multiply_planes<2, planes>(x, w, panel, read, y, ldy, scratch);
    }
  });
}

}  // namespace
}  // namespace gemma::cpu
