#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/config.h>
#include <gemma/models/gemma_model.h>
#include <gemma/models/weights.h>
#include <gemma/modules/embedding.h>
#include <gemma/modules/module.h>
#include <gemma/modules/sampler.h>
#include <gemma/text/tokenizer.h>

namespace gemma {

/// What generate() takes besides the reference's parameters. What a callback throws ends the
/// generation.
struct GenerateOptions {
  /// After each step, with its number from 0; step 0 holds the prompt.
  std::function<void(int64_t step)> on_step = {};
  /// Each token of a text as it is chosen, with the number of its prompt.
  std::function<void(int64_t row, int64_t token)> on_token = {};
  /// Tokens that end a text as eos does.
  std::vector<int64_t> stop_ids = {};
  /// Of keys and values in fast numerics, float32 or bfloat16; exact ones follow config.dtype.
  torch::Dtype kv_dtype = torch::kFloat32;
};

/// model.py: GemmaForCausalLM, the text model. Weights take the default dtype at construction
/// (DefaultDtypeGuard); config.dtype is that of the KV cache, and the two have to agree.
class GemmaForCausalLMImpl : public Module {
 public:
  /// Throws std::invalid_argument for a config that validate() refuses, FileNotFound when
  /// config.tokenizer names no file.
  // Differs from model.py: config.tokenizer may be none, for a model without generate().
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

  /// What forward gives the sampler: the hidden states after the final norm, [B, L, E].
  torch::Tensor hidden_states(const torch::Tensor& input_token_ids,
                              const torch::Tensor& input_positions,
                              const std::vector<KVCache>& kv_caches,
                              const torch::Tensor& mask,
                              const std::optional<torch::Tensor>& local_mask = std::nullopt);

  /// The hidden states of a step of an engine, after the final norm: token ids int64 [T] of any
  /// sequences, as the runs say, and for each layer the caches of the runs -> [T, E].
  torch::Tensor hidden_states(const torch::Tensor& token_ids,
                              std::span<const TokenRun> runs,
                              const std::vector<std::vector<RingCache>>& caches);

  /// Continues each prompt by up to output_len tokens, to before the first eos.
  /// temperature none or 0: always the likeliest token; else draws from LibTorch's default
  /// generator, as the reference: the same seed gives the same text.
  /// With exact numerics this is the reference's loop, which goes on after eos unless every text
  /// has met one of options.stop_ids; with fast numerics it runs on an Engine and ends with the
  /// last text. Defined in gemma/generate. Throws std::invalid_argument when prompt and output
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

  /// Loads a .ckpt file or a directory of shards; see gemma/models/weights.h.
  LoadReport load_weights(const std::string& model_path, const ProgressCallback& progress = {});

  /// Caches of zeros for `max_seq_len` tokens of `batch_size` rows, in config.dtype.
  std::vector<KVCache> make_kv_caches(int64_t batch_size,
                                      int64_t max_seq_len,
                                      torch::Device device) const;

  const GemmaConfig& config() const { return config_; }
  /// Throws std::logic_error when the config names none.
  const Tokenizer& tokenizer() const;
  std::string signature() const override { return "GemmaForCausalLM()"; }

  Embedding embedder{nullptr};
  GemmaModel model{nullptr};
  Sampler sampler{nullptr};
  torch::Tensor freqs_cis;         // complex64 [2 * max_position_embeddings, D / 2], Gemma 1 and 2
  torch::Tensor local_freqs_cis;   // Likewise, Gemma 3.
  torch::Tensor global_freqs_cis;  // Likewise, Gemma 3.

 private:
  void register_freqs_cis();
  // [...] int64 -> [..., E], multiplied by the root of E.
  torch::Tensor embed(const torch::Tensor& token_ids);
  // Throws std::invalid_argument when the weights are elsewhere.
  void check_device(torch::Device device) const;
  // The whole tables.
  FreqsCis rope_tables() const;

  GemmaConfig config_;
  std::optional<Tokenizer> tokenizer_;
};
TORCH_MODULE(GemmaForCausalLM);

}  // namespace gemma
