#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <gemma/ops/attention_types.h>
#include <gemma/ops/numerics.h>
#include <gemma/ops/pass.h>
#include <gemma/ops/recurrence_types.h>
#include <gemma/ops/sampling_params.h>
#include <gemma/ops/weight_view.h>

/// How a model computes. Modules say what is computed and call these operations; which backend
/// stands behind them is set on a loaded model (Module::set_numerics, Module::to).
///
/// Shapes: B batch, L input length, T tokens of a pass, S cache length, H query heads, K key/value
/// heads, D head dim, E hidden, V vocabulary.
namespace gemma {

/// A value inside of an operation.
enum class Inner {
  kInverseRms,    ///< rms_norm: 1 / sqrt(mean(x^2) + eps), [..., 1], float32 or x's dtype.
  kNormalized,    ///< rms_norm: x times that, before the weight, likewise [..., E].
  kRotatedQuery,  ///< rotate_and_cache: [B, L, H, D].
  kRotatedKey,    ///< rotate_and_cache: [B, L, K, D].
  kScores,        ///< attend, attend_seen: [B, H, L, S], masked; attend_all: [N, H, P, P].
  kPattern,       ///< The same: their softmax.
  kInputGate,     ///< rg_lru: what x is multiplied by, 0 to 1, [B, T, E].
  kDecayGate,     ///< rg_lru: what the logarithm of the decay is multiplied by, 0 to 1, [B, T, E].
  kDecay,         ///< rg_lru: what the state before is multiplied by, [B, T, E].
  kGatedInput,    ///< rg_lru: what is added to it, [B, T, E].
};

/// The operations of a model. This class computes as the reference does, bit for bit, on every
/// device and in every dtype: by its own sequence of ATen calls, less the work that cannot change a
/// bit (said where it is omitted). A backend derives from it and overrides what it does faster.
class Ops {
 public:
  virtual ~Ops() = default;

  virtual Numerics numerics() const { return Numerics::kExact; }

  /// x @ weight^T: [..., in] -> [..., out].
  virtual at::Tensor linear(const at::Tensor& x, const WeightView& weight, Pass pass) const;

  /// Rows of the table: [...] int64 -> [..., E].
  virtual at::Tensor embedding(const at::Tensor& ids, const WeightView& weight) const;

  /// [..., E] -> [..., E] in x's dtype.
  virtual at::Tensor rms_norm(const at::Tensor& x, const NormWeight& norm) const;

  /// residual + rms_norm(x): both [..., E].
  virtual at::Tensor add_rms_norm(const at::Tensor& residual,
                                  const at::Tensor& x,
                                  const NormWeight& norm) const;

  /// down(gelu_tanh(gate(x)) * up(x)): [..., E] -> [..., E].
  virtual at::Tensor gated_mlp(const at::Tensor& x,
                               const WeightView& gate,
                               const WeightView& up,
                               const WeightView& down,
                               Pass pass) const;

  /// Splits a fused projection into heads, normalises queries and keys if asked to, rotates them,
  /// and writes keys and values into the cache at `write_indices` [L].
  /// qkv [B, L, (H + 2K) * D], freqs_cis complex64 [L, D / 2] -> queries [B, L, H, D].
  virtual at::Tensor rotate_and_cache(const at::Tensor& qkv,
                                      const HeadShape& shape,
                                      const HeadNorms& norms,
                                      const at::Tensor& freqs_cis,
                                      const at::Tensor& write_indices,
                                      const KVCache& cache) const;

  /// Attention of queries [B, L, H, D] over the whole cache; `mask` is added to the scores
  /// [B, H, L, S]. May scale `q` in place. -> [B, L, H * D].
  virtual at::Tensor attend(const at::Tensor& q,
                            const KVCache& cache,
                            const at::Tensor& mask,
                            const AttentionScale& scale) const;

  /// rotate_and_cache and attend for the tokens of a pass: tables[i] is that of the sequence of
  /// segments[i], and has a block for every position that its tokens see, and for the tokens.
  /// Segments of a decode pass have one token each, of different sequences. Without a window a
  /// token sees all positions up to its own; else the last `window` of those; of a bidirectional
  /// segment more, as Segment says. qkv [T, (H + 2K) * D], freqs_cis complex64 [T, D / 2]
  /// -> [T, H * D].
  virtual at::Tensor attend_segments(const at::Tensor& qkv,
                                     const HeadShape& shape,
                                     const HeadNorms& norms,
                                     const AttentionScale& scale,
                                     std::optional<int64_t> window,
                                     const at::Tensor& freqs_cis,
                                     Pass pass,
                                     std::span<const Segment> segments,
                                     const BlockCache& cache,
                                     std::span<const BlockTable> tables) const;

  /// x @ weight^T + bias: [..., in] -> [..., out].
  virtual at::Tensor biased_linear(const at::Tensor& x,
                                   const BiasedWeight& linear,
                                   Pass pass) const;

  /// The vision model's operations: [N, P, E] are the patches of N images.

  /// [..., E] -> [..., E].
  virtual at::Tensor layer_norm(const at::Tensor& x, const LayerNormWeight& norm) const;

  /// down(gelu_tanh(up(x))): [..., E] -> [..., E].
  virtual at::Tensor gelu_mlp(const at::Tensor& x,
                              const BiasedWeight& up,
                              const BiasedWeight& down) const;

  /// Attention of every patch to all patches of its image: [N, P, H * D] each -> [N, P, H * D].
  virtual at::Tensor attend_all(const at::Tensor& q,
                                const at::Tensor& k,
                                const at::Tensor& v,
                                int64_t num_heads) const;

  /// Convolution by squares that do not overlap, row by row: pixels [N, C, height, width], weight
  /// [E, C, side, side], bias [E] or undefined -> [N, P, E] in the weight's dtype.
  virtual at::Tensor embed_patches(const at::Tensor& pixels,
                                   const at::Tensor& weight,
                                   const at::Tensor& bias) const;

  /// Means of squares of 4 x 4 patches: [N, P, E] -> [N, P / 16, E]. P has to be a square number.
  virtual at::Tensor pool_patches(const at::Tensor& x) const;

  /// RecurrentGemma's operations. positions [B, T] of any integer dtype: 0 begins a document, and
  /// what is left of it, documents and padding (-1), is not seen. What a layer keeps between calls
  /// is its state; with one, T is 1.

  /// Each of H parts of x times its own matrix: x [..., H * W], weight [H, W, W], bias [H, W]
  /// -> [..., H * W].
  virtual at::Tensor block_diagonal_linear(const at::Tensor& x, const BiasedWeight& blocks) const;

  /// Convolution over time, each feature by itself: x [B, T, E], weight [K, E], bias [E], state
  /// [B, K - 1, E], the inputs before x, or none -> ([B, T, E], the next state). Without a state,
  /// the inputs that no later output sees, as a document begins between, become 0 in `x` itself.
  virtual std::pair<at::Tensor, at::Tensor> causal_conv(
      const at::Tensor& x,
      const BiasedWeight& conv,
      const at::Tensor& positions,
      const std::optional<at::Tensor>& state) const;

  /// The gated recurrence: x [B, T, E], state float32 [B, E] or none
  /// -> ([B, T, E] in x's dtype, the next state).
  virtual std::pair<at::Tensor, at::Tensor> rg_lru(const at::Tensor& x,
                                                   const RgLruWeights& weights,
                                                   const at::Tensor& positions,
                                                   const std::optional<at::Tensor>& state) const;

  /// Rotates the pairs (i, i + D / 4) in the first half of every head: x [B, T, heads, D]
  /// -> the same shape.
  virtual at::Tensor rotate_first_half(const at::Tensor& x, const at::Tensor& positions) const;

  /// Attention of q [B, T, H, D] to the keys and values [B, S, 1, D] where `seen`, bool [B, T, S],
  /// says so -> [B, T, H * D].
  virtual at::Tensor attend_seen(const at::Tensor& q,
                                 const at::Tensor& k,
                                 const at::Tensor& v,
                                 const at::Tensor& seen) const;

  /// causal_conv and rg_lru for the tokens of a pass: slots[i] says where the state of the sequence
  /// of segments[i] is; a segment at position 0 begins one. Segments of one sequence come in order,
  /// and those of a decode pass have one token each. x [T, R] -> [T, R].
  virtual at::Tensor recur_segments(const at::Tensor& x,
                                    const BiasedWeight& conv,
                                    const RgLruWeights& weights,
                                    Pass pass,
                                    std::span<const Segment> segments,
                                    const RecurrentCache& cache,
                                    std::span<const StateSlots> slots) const;

  /// linear(x * gelu_tanh(gate)): [..., E] each.
  virtual at::Tensor gelu_gated_linear(const at::Tensor& x,
                                       const at::Tensor& gate,
                                       const BiasedWeight& linear,
                                       Pass pass) const;

  /// einsum of x and the weight by the equation, plus the bias, of any shapes that fit it.
  virtual at::Tensor biased_einsum(std::string_view equation,
                                   const at::Tensor& x,
                                   const BiasedWeight& weight) const;

  /// down(gelu_tanh(x @ weight[0] + bias[0]) * (x @ weight[1] + bias[1])): x [B, T, E], weight
  /// [2, E, F], bias [2, 1, 1, F] -> [B, T, E]. In an engine x is [T, E].
  virtual at::Tensor stacked_mlp(const at::Tensor& x,
                                 const BiasedWeight& gate_and_up,
                                 const BiasedWeight& down,
                                 Pass pass) const;

  /// Whether matrices [..., in, out], which RecurrentGemma has some of, had better lie in memory
  /// as [..., out, in].
  virtual bool wants_transposed() const { return false; }

  /// Logits of `hidden` [B, E] against the embedding, then a token for each row: drawn, or the
  /// likeliest.
  /// -> (tokens [B] int64, logits [B, V], divided by the temperature when sampling).
  virtual std::pair<at::Tensor, at::Tensor> sample(const at::Tensor& hidden,
                                                   const WeightView& embedding,
                                                   const std::optional<at::Tensor>& bias,
                                                   std::optional<double> softcap,
                                                   const SamplingParams& params) const;

  /// The logits of the tokens of a decode pass: hidden [B, E] -> [B, V], not capped; in `buffer` if
  /// that has as many rows or more.
  virtual at::Tensor logits(const at::Tensor& hidden,
                            const WeightView& embedding,
                            at::Tensor buffer) const;

 protected:
  /// Called by this class with each such value: returns it, or what to go on with in its place.
  virtual at::Tensor inner(Inner which, const at::Tensor& value) const;
};

/// The matrix of a weight as floats, [rows, columns]: of 4 bits float32, of blocks in
/// the layout's dtype, of others in that of the matrix or of its scales.
at::Tensor dequantize(const WeightView& weight);

/// tanh(x / cap) * cap in x's dtype: the reference's soft limit of scores and logits.
at::Tensor softcap(const at::Tensor& x, double cap);

/// What computes with these numerics on a device; lives as long as the program. Throws
/// std::invalid_argument for fast numerics on another device than the CPU.
const Ops& ops_for(Numerics numerics, c10::Device device);

}  // namespace gemma
