#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/generate/options.h>
#include <gemma/generate/request.h>
#include <gemma/models/language_model.h>

namespace gemma {

/// model.py: GemmaForCausalLM, the text model.
class GemmaForCausalLMImpl : public LanguageModelImpl {
 public:
  /// Throws std::invalid_argument for a config that validate() refuses, FileNotFound when
  /// config.tokenizer names no file.
  explicit GemmaForCausalLMImpl(const GemmaConfig& config);

  /// input_token_ids [B, L] int64, input_positions [L] int64, kv_caches one a layer (written in
  /// place), mask and local_mask float32 [1, 1, L, S], output_positions [1] or 0-dim, temperatures
  /// [B] or none for the likeliest token, top_ps [B] float, top_ks [B] int64
  /// -> (next tokens [B] int64, logits [B, V]); see Sampler.
  /// kv_write_indices is not read: the cache is written at input_positions, as in the reference.
  std::pair<torch::Tensor, torch::Tensor> forward(
      const torch::Tensor& input_token_ids,
      const torch::Tensor& input_positions,
      const std::optional<torch::Tensor>& kv_write_indices,
      const std::vector<KVCache>& kv_caches,
      const torch::Tensor& mask,
      const torch::Tensor& output_positions,
      const std::optional<torch::Tensor>& temperatures,
      const torch::Tensor& top_ps,
      const torch::Tensor& top_ks,
      const std::optional<torch::Tensor>& local_mask = std::nullopt);

  /// Continues each prompt by up to output_len tokens, to before the first eos.
  /// temperature none or 0: always the likeliest token; else draws from LibTorch's default
  /// generator, as the reference: the same seed gives the same text.
  /// With exact numerics this is the reference's loop, which goes on after eos unless every text
  /// has met one of options.stop_ids; with fast numerics it runs on a ModelRunner and ends with the
  /// last text. Throws std::invalid_argument when prompt and output
  /// exceed max_position_embeddings, for a parameter out of range, and for a `device` that is not
  /// the weights'.
  std::vector<std::string> generate(const std::vector<std::string>& prompts,
                                    torch::Device device,
                                    int64_t output_len = 100,
                                    std::optional<double> temperature = 1.0,
                                    double top_p = 0.95,
                                    int64_t top_k = 64,
                                    const GenerateOptions& options = {});
  std::string generate(const std::string& prompt,
                       torch::Device device,
                       int64_t output_len = 100,
                       std::optional<double> temperature = 1.0,
                       double top_p = 0.95,
                       int64_t top_k = 64,
                       const GenerateOptions& options = {});

  /// The same from token ids, bos included, to the ids of the continuations.
  TokenRows generate_ids(TokenRows prompts,
                         torch::Device device,
                         int64_t output_len,
                         std::optional<double> temperature,
                         double top_p,
                         int64_t top_k,
                         const GenerateOptions& options = {});

  std::string signature() const override { return "GemmaForCausalLM()"; }
};
TORCH_MODULE(GemmaForCausalLM);

}  // namespace gemma
