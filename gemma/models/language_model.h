#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/config/config.h>
#include <gemma/models/engine_model.h>
#include <gemma/models/gemma_model.h>
#include <gemma/modules/embedding.h>
#include <gemma/modules/sampler.h>
#include <gemma/weights/family.h>
#include <gemma/weights/weights.h>

namespace gemma {

/// What GemmaForCausalLM, Gemma3ForMultimodalLM and PaliGemmaForConditionalGeneration share: token
/// embedding, stack of layers, sampler, rotary tables, tokenizer. Weights take the default dtype at
/// construction (DefaultDtypeGuard); config.dtype is that of the KV cache, and the two have to
/// agree.
class LanguageModelImpl : public EngineModelImpl {
 public:
  /// Token ids [...] int64 -> [..., E], multiplied by the root of E.
  torch::Tensor embed(const torch::Tensor& token_ids) override;

  /// What the sampler is given: embeddings [B, L, E] through the layers and the final norm
  /// -> [B, L, E]. input_positions [L] int64, kv_caches one a layer (written in place), mask and
  /// local_mask float32 [1 or B, 1, L, S]. on_layer is called after each layer.
  torch::Tensor hidden_states(const torch::Tensor& embeddings,
                              const torch::Tensor& input_positions,
                              const std::vector<KVCache>& kv_caches,
                              const torch::Tensor& mask,
                              const std::optional<torch::Tensor>& local_mask = std::nullopt,
                              const LayerCallback& on_layer = {},
                              const LayerRange& range = {});

  torch::Tensor hidden_states(const torch::Tensor& embeddings,
                              const Step& step,
                              const LayerCallback& on_layer) override;
  torch::Tensor logits(const torch::Tensor& hidden_states, torch::Tensor buffer) const override;
  std::vector<LayerKeeps> kept_by_layers() const override;
  int64_t vocab_size() const override { return config_.vocab_size; }
  int64_t hidden_size() const override { return config_.hidden_size; }
  int64_t max_positions() const override { return config_.max_position_embeddings; }
  std::optional<double> logits_softcap() const override { return config_.final_logit_softcapping; }
  torch::Device device() const override { return embedder->weight.device(); }
  std::string config_bytes() const override;

  /// The logits of all positions of texts that begin at position 0: token ids [B, L] int64, or what
  /// goes into the first layer of the range, [B, L, E] -> [B, L, V], capped; for a range with an
  /// end, what comes out of its last layer, [B, L, E]. Keeps a graph for gradients. Throws
  /// c10::Error for ids where the range does not begin with layer 0, std::invalid_argument for
  /// positions that the model does not have, or a range of none of its layers.
  torch::Tensor run(const torch::Tensor& input,
                    const LayerRange& range = {},
                    const LayerCallback& on_layer = {});

  /// Loads what WeightSource::open takes; see gemma/weights/weights.h.
  LoadReport load_weights(const std::string& model_path, const LoadOptions& options = {});
  LoadReport load_weights(const WeightSource& source, const LoadOptions& options = {});

  /// Caches of zeros for `max_seq_len` tokens of `batch_size` rows, in config.dtype.
  std::vector<KVCache> make_kv_caches(int64_t batch_size,
                                      int64_t max_seq_len,
                                      torch::Device device) const;

  /// Throws std::invalid_argument when the weights are elsewhere.
  void check_device(torch::Device device) const;

  const GemmaConfig& config() const { return config_; }
  std::vector<TapPoint> tap_points() const override;

  Embedding embedder{nullptr};  // Under the name that the checkpoint has for it.
  GemmaModel model{nullptr};
  Sampler sampler{nullptr};
  torch::Tensor freqs_cis;         // complex64 [2 * max_position_embeddings, D / 2], Gemma 1 and 2
  torch::Tensor local_freqs_cis;   // Likewise, Gemma 3.
  torch::Tensor global_freqs_cis;  // Likewise, Gemma 3.

 protected:
  /// Throws std::invalid_argument for a config that validate() refuses, FileNotFound when
  /// config.tokenizer names no file.
  // Differs from model.py: config.tokenizer may be none, for a model without generate().
  LanguageModelImpl(const GemmaConfig& config, const std::string& embedder_name);

  /// Whose files load_weights takes.
  virtual Family family() const { return Family::kGemma; }

 private:
  std::vector<std::string> other_names(const std::string& path) const override;
  torch::Tensor all_logits(const torch::Tensor& hidden_states);
  void register_freqs_cis();
  // The whole tables.
  FreqsCis rope_tables() const;

  GemmaConfig config_;
};

/// Any of these models.
class LanguageModel : public torch::nn::ModuleHolder<LanguageModelImpl> {
 public:
  explicit LanguageModel(std::shared_ptr<LanguageModelImpl> model)
      : ModuleHolder(std::move(model)) {}

  /// Implicit: one of them is any of them.
  template <typename Impl>
  LanguageModel(const torch::nn::ModuleHolder<Impl>& model)
      : LanguageModel(std::shared_ptr<LanguageModelImpl>(model.ptr())) {}
};

}  // namespace gemma
