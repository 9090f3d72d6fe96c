#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/attention_inputs.h>
#include <gemma/modules/biased_linear.h>
#include <gemma/modules/linear.h>
#include <gemma/modules/module.h>
#include <gemma/modules/recurrentgemma/cache.h>
#include <gemma/ops/ops.h>

namespace gemma::recurrentgemma {

/// recurrentgemma/torch/modules.py: LocalAttentionBlock. Attention with one key/value head, to the
/// token itself and the window_size tokens before it.
class LocalAttentionBlockImpl : public Module {
 public:
  /// Throws std::invalid_argument for a negative size, and unless num_heads divides width.
  LocalAttentionBlockImpl(int64_t width, int64_t num_heads, int64_t window_size);

  /// x [B, T, width], segment_pos [B, T], 0 where a document begins and -1 for padding on the left;
  /// with a cache, T is 1, or window_size or more -> ([B, T, width], the next cache, none unless
  /// return_cache). Writes into the tensors of a cache. Throws c10::ValueError for other shapes.
  std::pair<torch::Tensor, std::optional<AttentionBlockCache>> forward(
      const torch::Tensor& x,
      const torch::Tensor& segment_pos,
      const std::optional<AttentionBlockCache>& cache = std::nullopt,
      bool return_cache = true);

  /// The same in an engine: x [T, width] -> [T, width]; keys are kept with the pairs of a rotation
  /// half a head apart, as step_freqs_cis rotates them.
  torch::Tensor forward_step(const torch::Tensor& x, const StepInputs& inputs);

  /// Zeros; num_tokens is int32.
  static AttentionBlockCache init_cache(int64_t batch_size,
                                        int64_t window_size,
                                        int64_t heads_dim,
                                        torch::Dtype dtype,
                                        torch::Device device = torch::kCPU);

  int64_t width() const { return proj_q->weight.size(0); }
  int64_t num_heads() const { return num_heads_; }
  int64_t head_dim() const { return proj_k->weight.size(0); }
  int64_t window_size() const { return window_size_; }
  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override { return "LocalAttentionBlock()"; }

  Linear proj_q{nullptr};
  Linear proj_k{nullptr};
  Linear proj_v{nullptr};
  BiasedLinear proj_final{nullptr};

 private:
  struct Heads {
    torch::Tensor q;     // [..., num_heads, head_dim]
    torch::Tensor k, v;  // [..., 1, head_dim]
  };
  Heads project(const torch::Tensor& x, Pass pass);
  torch::Tensor attend(const torch::Tensor& q,
                       const torch::Tensor& k,
                       const torch::Tensor& v,
                       const torch::Tensor& seen) const;
  torch::Tensor attend_step(const Heads& heads, const StepInputs& inputs) const;
  torch::Tensor finish(const torch::Tensor& encoded, Pass pass);
  torch::Tensor tapped_inner(Inner which, const torch::Tensor& value) const;

  int64_t num_heads_;
  int64_t window_size_;
};
TORCH_MODULE(LocalAttentionBlock);

/// The rotation of forward_step: that of the pairs of a head's first half by their positions, int64
/// [T]; what is in the second half stays. -> complex64 [T, D / 2].
torch::Tensor step_freqs_cis(const torch::Tensor& positions, int64_t head_dim);

}  // namespace gemma::recurrentgemma
