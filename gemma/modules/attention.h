#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/config/config.h>
#include <gemma/modules/attention_inputs.h>
#include <gemma/modules/linear.h>
#include <gemma/modules/module.h>
#include <gemma/modules/rms_norm.h>

namespace gemma {

/// model.py: GemmaAttention. Multi-head, grouped-query or multi-query attention over a cache.
class GemmaAttentionImpl : public Module {
 public:
  /// Throws std::invalid_argument for a config that validate() refuses.
  GemmaAttentionImpl(const GemmaConfig& config, AttentionType attn_type);

  /// hidden_states [B, L, E], freqs_cis complex64 [L, D / 2], kv_write_indices [L] int64,
  /// kv_cache [B, S, K, D] each (written in place), mask and local_mask float32 [1 or B, 1, L, S]
  /// -> [B, L, E]. local_mask replaces mask in a local layer with a window.
  torch::Tensor forward(const torch::Tensor& hidden_states,
                        const torch::Tensor& freqs_cis,
                        const torch::Tensor& kv_write_indices,
                        const KVCache& kv_cache,
                        const torch::Tensor& mask,
                        const std::optional<torch::Tensor>& local_mask = std::nullopt);

  /// What forward does: hidden_states [B, L, E] or [T, E], as the inputs say -> the same shape.
  torch::Tensor forward_with(const torch::Tensor& hidden_states, const AttentionInputs& inputs);

  AttentionType attn_type() const { return attn_type_; }
  int64_t num_heads() const { return shape_.num_heads; }
  int64_t num_kv_heads() const { return shape_.num_kv_heads; }
  int64_t head_dim() const { return shape_.head_dim; }
  double scaling() const { return scale_.scaling; }
  std::optional<int64_t> sliding_window_size() const { return sliding_window_size_; }
  /// Keys that a token sees, itself included; none: all.
  std::optional<int64_t> window() const {
    return attn_type_ == AttentionType::kLocalSliding ? sliding_window_size_ : std::nullopt;
  }
  std::optional<double> attn_logit_softcapping() const { return scale_.softcap; }

  std::vector<TapPoint> tap_points() const override;
  std::string signature() const override { return "GemmaAttention()"; }

  Linear qkv_proj{nullptr};
  Linear o_proj{nullptr};
  RMSNorm query_norm{nullptr};  // Empty unless config.use_qk_norm.
  RMSNorm key_norm{nullptr};    // Likewise.

 private:
  torch::Tensor attend(const Ops& by, const torch::Tensor& qkv, const DenseInputs& inputs) const;
  torch::Tensor attend(const Ops& by, const torch::Tensor& qkv, const StepInputs& inputs) const;
  torch::Tensor forward_tapped(const torch::Tensor& hidden_states, const AttentionInputs& inputs);
  torch::Tensor attend_tapped(const torch::Tensor& qkv, const AttentionInputs& inputs) const;
  torch::Tensor tapped_heads(const torch::Tensor& qkv) const;
  torch::Tensor sum_of_results(const torch::Tensor& z, Pass pass);
  bool are_norms_tapped() const;
  void check_taps(Numerics numerics) const override;

  HeadShape shape_;
  AttentionScale scale_;
  AttentionType attn_type_;
  std::optional<int64_t> sliding_window_size_;
};
TORCH_MODULE(GemmaAttention);

}  // namespace gemma
