#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <gemma/modules/sampler.h>
#include <gemma/ops/ops.h>

namespace gemma {

SamplerImpl::SamplerImpl(int64_t vocab_size, const GemmaConfig& config)
    : vocab_size_(vocab_size), config_(config) {}

std::pair<torch::Tensor, torch::Tensor> SamplerImpl::forward(
    const WeightView& embedding,
    const torch::Tensor& hidden_states,
    const torch::Tensor& output_positions,
    const std::optional<torch::Tensor>& temperatures,
    const torch::Tensor& top_ps,
    const torch::Tensor& top_ks,
    const std::optional<torch::Tensor>& embedding_bias) {
  const torch::NoGradGuard no_grad;
  const auto hidden = hidden_states.index_select(1, output_positions).squeeze(1);
  return ops().sample(hidden, embedding, embedding_bias, config_.final_logit_softcapping,
                      {temperatures, top_ps, top_ks});
}

}  // namespace gemma
