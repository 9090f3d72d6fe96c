#include <gemma/generate/causal_lm.h>

namespace gemma {

GemmaForCausalLMImpl::GemmaForCausalLMImpl(const GemmaConfig& config)
    : LanguageModelImpl(config, "embedder") {}

std::pair<torch::Tensor, torch::Tensor> GemmaForCausalLMImpl::forward(
    const torch::Tensor& input_token_ids,
    const torch::Tensor& input_positions,
    const std::optional<torch::Tensor>& /*kv_write_indices*/,
    const std::vector<KVCache>& kv_caches,
    const torch::Tensor& mask,
    const torch::Tensor& output_positions,
    const std::optional<torch::Tensor>& temperatures,
    const torch::Tensor& top_ps,
    const torch::Tensor& top_ks,
    const std::optional<torch::Tensor>& local_mask) {
  const torch::NoGradGuard no_grad;
  return sampler(
      embedder->operand(),
      hidden_states(embed(input_token_ids), input_positions, kv_caches, mask, local_mask),
      output_positions, temperatures, top_ps, top_ks, std::nullopt);
}

}  // namespace gemma
