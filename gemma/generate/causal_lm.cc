#include <gemma/generate/causal_lm.h>
#include <gemma/generate/loops.h>
#include <gemma/modules/masks.h>

namespace gemma {

GemmaForCausalLMImpl::GemmaForCausalLMImpl(const GemmaConfig& config)
    : LanguageModelImpl(config, "embedder") {
  share_use_lock();
}

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
  const UseLock::Use use(use_lock());
  return sampler(
      embedder->view(),
      hidden_states(embed(input_token_ids), input_positions, kv_caches, mask, local_mask),
      output_positions, temperatures, top_ps, top_ks, std::nullopt);
}

std::vector<std::string> GemmaForCausalLMImpl::generate(const std::vector<std::string>& prompts,
                                                        torch::Device device,
                                                        int64_t output_len,
                                                        std::optional<double> temperature,
                                                        double top_p,
                                                        int64_t top_k,
                                                        const GenerateOptions& options) {
  const UseLock::Use use(use_lock());
  TokenRows rows;
  for (const auto& prompt : prompts) rows.push_back(tokenizer().encode(prompt));
  std::vector<std::string> results;
  for (const auto& text :
       generate_ids(std::move(rows), device, output_len, temperature, top_p, top_k, options)) {
    results.push_back(tokenizer().decode(text));
  }
  return results;
}

TokenRows GemmaForCausalLMImpl::generate_ids(TokenRows prompts,
                                             torch::Device device,
                                             int64_t output_len,
                                             std::optional<double> temperature,
                                             double top_p,
                                             int64_t top_k,
                                             const GenerateOptions& options) {
  const torch::NoGradGuard no_grad;
  const UseLock::Use use(use_lock());
  check_sampling(prompts.size(), output_len, temperature, top_p, top_k);
  const auto request = make_request(std::move(prompts), output_len, temperature, top_p, top_k);
  check_lengths(request.max_prompt_len(), output_len, config());
  const ModelInputs inputs{
      .embed = [this](const at::Tensor& token_ids) { return embed(token_ids); },
      .masks =
          [&, window = config().sliding_window_size](const at::Tensor& positions) {
            auto mask = causal_mask(positions, request.max_seq_len());
            auto local_mask =
                window
                    ? std::optional(sliding_window_mask(positions, request.max_seq_len(), *window))
                    : std::nullopt;
            return Masks{std::move(mask), std::move(local_mask)};
          },
      .images = {}};
  return generate_tokens(*this, device, request, inputs, options);
}

std::string GemmaForCausalLMImpl::generate(const std::string& prompt,
                                           torch::Device device,
                                           int64_t output_len,
                                           std::optional<double> temperature,
                                           double top_p,
                                           int64_t top_k,
                                           const GenerateOptions& options) {
  return generate(std::vector{prompt}, device, output_len, temperature, top_p, top_k, options)
      .front();
}

}  // namespace gemma
