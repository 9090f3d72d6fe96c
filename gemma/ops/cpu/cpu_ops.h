#pragma once

#include <optional>
#include <span>
#include <utility>

#include <gemma/ops/ops.h>

namespace gemma {

/// The kernels of gemma/ops/cpu on tensors: float32 arithmetic, weights in the dtype they have.
/// Results are float32 where the input is, and those of the reference's float32 run up to the order
/// of summation. Attention over a dense cache with a mask is left to the reference's calls, in
/// float32. Throws c10::Error for tensors that are not on the CPU.
class CpuOps : public Ops {
 public:
  Numerics numerics() const override { return Numerics::kFast; }

  at::Tensor linear(const at::Tensor& x, const WeightView& weight, Pass pass) const override;
  at::Tensor embedding(const at::Tensor& ids, const WeightView& weight) const override;
  at::Tensor rms_norm(const at::Tensor& x, const NormWeight& norm) const override;
  at::Tensor add_rms_norm(const at::Tensor& residual,
                          const at::Tensor& x,
                          const NormWeight& norm) const override;
  at::Tensor gated_mlp(const at::Tensor& x,
                       const WeightView& gate,
                       const WeightView& up,
                       const WeightView& down,
                       Pass pass) const override;
  at::Tensor rotate_and_cache(const at::Tensor& qkv,
                              const HeadShape& shape,
                              const HeadNorms& norms,
                              const at::Tensor& freqs_cis,
                              const at::Tensor& write_indices,
                              const KVCache& cache) const override;
  at::Tensor attend(const at::Tensor& q,
                    const KVCache& cache,
                    const at::Tensor& mask,
                    const AttentionScale& scale) const override;
  at::Tensor attend_segments(const at::Tensor& qkv,
                             const HeadShape& shape,
                             const HeadNorms& norms,
                             const AttentionScale& scale,
                             std::optional<int64_t> window,
                             const at::Tensor& freqs_cis,
                             Pass pass,
                             std::span<const Segment> segments,
                             const BlockCache& cache,
                             std::span<const BlockTable> tables) const override;
  at::Tensor biased_linear(const at::Tensor& x,
                           const BiasedWeight& linear,
                           Pass pass) const override;
  at::Tensor layer_norm(const at::Tensor& x, const LayerNormWeight& norm) const override;
  at::Tensor gelu_mlp(const at::Tensor& x,
                      const BiasedWeight& up,
                      const BiasedWeight& down) const override;
  at::Tensor attend_all(const at::Tensor& q,
                        const at::Tensor& k,
                        const at::Tensor& v,
                        int64_t num_heads) const override;
  at::Tensor embed_patches(const at::Tensor& pixels,
                           const at::Tensor& weight,
                           const at::Tensor& bias) const override;
  at::Tensor recur_segments(const at::Tensor& x,
                            const BiasedWeight& conv,
                            const RgLruWeights& weights,
                            Pass pass,
                            std::span<const Segment> segments,
                            const RecurrentCache& cache,
                            std::span<const StateSlots> slots) const override;
  at::Tensor gelu_gated_linear(const at::Tensor& x,
                               const at::Tensor& gate,
                               const BiasedWeight& linear,
                               Pass pass) const override;
  at::Tensor stacked_mlp(const at::Tensor& x,
                         const BiasedWeight& gate_and_up,
                         const BiasedWeight& down,
                         Pass pass) const override;
  bool wants_transposed() const override { return true; }
  std::pair<at::Tensor, at::Tensor> sample(const at::Tensor& hidden,
                                           const WeightView& embedding,
                                           const std::optional<at::Tensor>& bias,
                                           std::optional<double> softcap,
                                           const SamplingParams& params) const override;
  at::Tensor logits(const at::Tensor& hidden,
                    const WeightView& embedding,
                    at::Tensor buffer) const override;
};

}  // namespace gemma
