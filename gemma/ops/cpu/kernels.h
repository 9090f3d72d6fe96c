#pragma once

#include <cstddef>
#include <cstdint>

#include <gemma/checkpoint/encoding.h>

/// The innermost loops of fast numerics on the CPU, on plain memory and one thread. CpuOps handles
/// tensors, and divides the work among threads.
namespace gemma::cpu {

/// The 16-bit formats as bytes in memory.
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

enum class WeightType { kFloat32, kBFloat16, kFloat16, kInt8, kInt4, kBlocks };
static constexpr bool is_float(WeightType type) {
  return type == WeightType::kFloat32 || type == WeightType::kBFloat16 ||
         type == WeightType::kFloat16;
}
enum class CacheType { kFloat32, kBFloat16 };

/// Rows of a matrix that stand in blocks of one format of GGUF.
struct BlockRows {
  const std::byte* data;  // Of row `begin`.
  Encoding encoding;
  int64_t begin, end;  // Which rows of the matrix.
};

/// A matrix as the checkpoint holds it: [rows, columns], contiguous.
struct WeightView {
  const void* data;  // nullptr of kBlocks.
  WeightType type;
  const void* scales;  // [rows] of scale_type, of kInt8; else nullptr.
  int64_t rows;
  int64_t columns;  // Of kInt4 and kBlocks a multiple of kGroup.
  WeightType scale_type = WeightType::kFloat32;
  const Float16* group_scales = nullptr;  // [rows, columns / kGroup], of kInt4.
  const BlockRows* blocks = nullptr;      // All rows, in parts, of kBlocks.
  int64_t block_parts = 0;
};

/// Numbers of a row that share a scale, in 4-bit weights and their activations.
inline constexpr int64_t kGroup = 32;

/// Rows [begin, end) of `rows` that were packed; begin is a multiple of gemm_mr.
struct PackedRows {
  const std::byte* data;
  int64_t rows;
  int64_t begin;
  int64_t end;
};

/// One key/value head of one sequence's cache, in blocks of kCacheBlock positions: position p is in
/// the block blocks[p / kCacheBlock - first]. A position has `stride` numbers, `dim` of them in
/// use.
struct CacheHead {
  void* k;  // Of block 0.
  void* v;
  CacheType type;
  const int32_t* blocks;
  int64_t first;
  int64_t block_stride;  // Numbers from a block to the next.
  int64_t dim;
  int64_t stride;  // A multiple of kCachePadding; the numbers after `dim` are zeros.
};
inline constexpr int64_t kCacheBlock = 64;
inline constexpr int64_t kCachePadding = 8;

/// A softmax over some of the keys: the largest score, and the sum of e^(score - max).
struct PartialSoftmax {
  float max;
  float sum;
};

/// Some consecutive tokens of a sequence, and the query heads that share a key/value head.
struct AttentionBlock {
  const float* q;  // Of the first token and head; tokens `ld_q` apart, heads `cache.stride`.
  int64_t ld_q;
  int64_t tokens;  // tokens * heads is at most attend_rows.
  int64_t heads;
  int64_t position;     // Of the first token. A token sees itself and the positions before it.
  int64_t window;       // The last positions that it sees, itself included; 0: all.
  int64_t run_end = 0;  // Tokens of a run that sees itself whole: where it ends; 0: no such run.
  int64_t ahead = 0;    // The first positions of it that a token sees from itself on; 0: all.
  float softcap;        // Of the scores; 0: none.
  float* out;           // As q, heads `cache.dim` apart.
  int64_t ld_out;
};

/// Some consecutive tokens of a sequence, and some features of a recurrence (RG-LRU).
struct RecurrenceBlock {
  const float* x;           // [tokens, features]
  const float* input_gate;  // Likewise, without bias; before the sigmoid.
  const float* a_gate;      // Likewise.
  const float* input_bias;  // [features]
  const float* a_bias;      // [features]
  const float* log_a;       // [features], where the gate is 1.
  int64_t tokens;
  int64_t features;
  bool begins;   // The first token is its sequence's: no state, and all of x counts.
  float* state;  // [features], of the token before; becomes that of the last.
  float* out;    // Tokens `ld_out` apart.
  int64_t ld_out;
};

/// Rows of x that are few.
inline constexpr int64_t kGemvRows = 8;
/// Most columns of x that are packed together.
inline constexpr int64_t kKc = 320;

/// One instruction set's implementation.
struct Kernels {
  const char* name;

  /// Rows of x that gemv_pack takes together, and weight rows that gemv does: it is fastest with a
  /// multiple of them.
  int64_t gemv_mr;
  int64_t gemv_nr;

  /// Bytes that x [rows, columns] has when it is packed for gemv with weights of `type`.
  int64_t (*gemv_size)(int64_t rows, int64_t columns, WeightType type);

  /// Packs the group-th gemv_mr rows of x [rows, columns] into their place in `packed` (gemv_size
  /// bytes, aligned to a cache line).
  void (*gemv_pack)(const float* x,
                    int64_t rows,
                    int64_t columns,
                    int64_t group,
                    WeightType type,
                    std::byte* packed);

  /// y[m * ldy + n - begin] = x[m] . w[n] for m < rows, n in [begin, end); w with a column or more.
  /// x packed, all of its rows. The order of summation does not depend on `rows`.
  void (*gemv)(const std::byte* x,
               int64_t rows,
               const WeightView& w,
               int64_t begin,
               int64_t end,
               float* y,
               int64_t ldy);

  /// Rows of x that `pack` takes together.
  int64_t gemm_mr;

  /// Bytes that x [rows, columns] has when it is packed for weights of `type`.
  int64_t (*packed_size)(int64_t rows, int64_t columns, WeightType type);

  /// Packs the group-th gemm_mr rows of x [rows, columns] into their place in `packed`
  /// (packed_size bytes, aligned to a cache line), in the form that gemm takes.
  void (*pack)(const float* x,
               int64_t rows,
               int64_t columns,
               int64_t group,
               WeightType type,
               std::byte* packed);

  /// Weight rows that gemm takes together, and most rows of x.
  int64_t gemm_nr;
  int64_t gemm_mc;

  /// Floats that gemm needs as scratch memory, aligned to a cache line.
  int64_t gemm_scratch;

  /// y[(m - x.begin) * ldy + n] = x[m] . w[panel * gemm_nr + n] for the rows m of x and
  /// n < gemm_nr (fewer in the last panel); w of any type, with a column or more.
  void (*gemm)(const PackedRows& x,
               const WeightView& w,
               int64_t panel,
               float* y,
               int64_t ldy,
               float* scratch);

  /// gate[i] = gelu_tanh(gate[i]) * up[i], rows of `columns` numbers `ld_gate` and `ld_up` apart.
  void (*geglu)(
      float* gate, int64_t ld_gate, const float* up, int64_t ld_up, int64_t rows, int64_t columns);

  /// Row `row` of w as floats.
  void (*read_row)(const WeightView& w, int64_t row, float* out);

  /// out = (residual +) x / sqrt(mean(x^2) + eps) * (weight + offset), weight.columns numbers;
  /// weight has one row; residual may be null. out may be x or residual.
  void (*rms_norm)(const float* x,
                   const WeightView& weight,
                   float offset,
                   float eps,
                   const float* residual,
                   float* out);

  /// Rotates the pairs (i, i + dim / 2) by freqs[i] = (cos, sin), and multiplies by scale.
  /// out has room for round_up(dim, kCachePadding), and is padded with zeros.
  void (*rotate)(const float* x, const float* freqs, float scale, int64_t dim, float* out);

  /// Writes a key and a value of `dim` numbers, and their padding.
  void (*write_position)(const CacheHead& cache, int64_t position, const float* k, const float* v);

  /// Attention of one token's queries [heads, stride], scaled, over the positions [begin, end).
  /// -> out [heads, stride], not yet divided by partial[head].sum.
  void (*attend_one)(const float* q,
                     int64_t heads,
                     const CacheHead& cache,
                     int64_t begin,
                     int64_t end,
                     float softcap,
                     PartialSoftmax* partial,
                     float* out);

  /// Most rows of an AttentionBlock, and how many of them are multiplied together.
  int64_t attend_rows;
  int64_t attend_mr;

  /// Floats that attend_block needs as scratch memory, aligned to a cache line.
  int64_t (*attend_scratch)(const CacheHead& cache);

  /// Attention of a block, finished. scratch: attend_scratch(cache) floats.
  void (*attend_block)(const AttentionBlock& block, const CacheHead& cache, float* scratch);

  /// out[t] = bias + the sum of x[t + k] * weight[k] over k < width, each feature by itself:
  /// x [width - 1 + tokens, features], weight [width, features], out [tokens, features].
  void (*causal_conv)(const float* x,
                      const float* weight,
                      const float* bias,
                      int64_t width,
                      int64_t tokens,
                      int64_t features,
                      float* out);

  /// The recurrence, token by token.
  void (*rg_lru)(const RecurrenceBlock& block);

  /// x = tanh(x / softcap) * softcap / temperature; softcap 0: none. -> the largest; NaN when one
  /// is NaN or infinite.
  float (*finish_logits)(float* x, int64_t size, float softcap, float temperature);

  /// The index of the first of the largest numbers.
  int64_t (*argmax)(const float* x, int64_t size);

  /// Sum of e^(x[i] / temperature - highest).
  double (*sum_exp)(const float* x, int64_t size, float temperature, float highest);

  /// Continues a Mersenne twister's sequence (MT19937, before tempering): words[i] from words
  /// [i - 624, i) for i in [624, count).
  void (*twist)(uint32_t* words, int64_t count);

  /// Probes, for `gemma bench`. Reads memory as fast as it can -> a sum of it.
  uint32_t (*read_memory)(const void* data, int64_t size);

  /// `rounds` times probe_flops floating-point operations, without memory -> a sum of them.
  /// sum = sum * factor + addend, so a factor below 1 keeps the numbers small.
  float (*multiply_registers)(int64_t rounds, float factor, float addend);
  int64_t probe_flops;
};

/// The best implementation for this machine. ATEN_CPU_CAPABILITY asks for a lesser one, as in
/// LibTorch: "avx512" for AVX-512 without AMX, "avx2", or "default" for the portable one.
const Kernels& kernels();

/// What `kernels()` chooses from.
extern const Kernels kPortableKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAmxKernels;

static constexpr int64_t round_up(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

/// Columns that are packed together: parts of equal size and whole groups, none above `most`, which
/// is a multiple of kGroup.
static constexpr int64_t packed_block(int64_t columns, int64_t most = kKc) {
  const auto blocks = (columns + most - 1) / most;
  return blocks == 0 ? 0 : round_up((columns + blocks - 1) / blocks, kGroup);
}

/// How many blocks of packed_block(columns) there are.
static constexpr int64_t packed_blocks(int64_t columns) {
  return columns == 0 ? 0 : (columns + packed_block(columns) - 1) / packed_block(columns);
}

}  // namespace gemma::cpu
