#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/pimpl.h>

#include <gemma/modules/attention_inputs.h>
#include <gemma/modules/module.h>
#include <gemma/text/tokenizer.h>

namespace gemma {

/// What an engine needs of a model: token ids in, logits of what follows out, and between them
/// layers that say what they keep of each sequence.
class EngineModelImpl : public Module {
 public:
  /// Token ids [...] int64 -> [..., E], as the layers take them.
  virtual torch::Tensor embed(const torch::Tensor& token_ids) = 0;

  /// Embeddings of the tokens of a step [T, E] through the layers and the final norm -> [T, E].
  /// on_layer is called after each layer.
  virtual torch::Tensor hidden_states(const torch::Tensor& embeddings,
                                      const Step& step,
                                      const LayerCallback& on_layer) = 0;

  /// The logits of tokens of a decode pass or of the last ones of prompts: hidden states [B, E]
  /// -> [B, V], not capped; in `buffer` if that has as many rows.
  virtual torch::Tensor logits(const torch::Tensor& hidden_states, torch::Tensor buffer) const = 0;

  /// One a layer, in order.
  virtual std::vector<LayerKeeps> kept_by_layers() const = 0;

  virtual int64_t vocab_size() const = 0;
  virtual int64_t hidden_size() const = 0;
  /// Tokens of a text.
  virtual int64_t max_positions() const = 0;
  /// Soft limit of the logits; none: no limit.
  virtual std::optional<double> logits_softcap() const = 0;
  /// Where the weights are.
  virtual torch::Device device() const = 0;
  /// What tells the model from others with the same weights.
  virtual std::string config_bytes() const = 0;

  /// Whether the tokens of an image that a text begins with see each other in local layers, too,
  /// however far apart.
  virtual bool prefix_ignores_window() const { return false; }

  /// Throws std::logic_error when there is none.
  const Tokenizer& tokenizer() const;
  bool has_tokenizer() const { return tokenizer_.has_value(); }
  /// In the place of the one that there is, if any, which nobody may use then.
  void set_tokenizer(Tokenizer tokenizer) { tokenizer_ = std::move(tokenizer); }

 private:
  std::optional<Tokenizer> tokenizer_;
};

/// Any of these models.
class EngineModel : public torch::nn::ModuleHolder<EngineModelImpl> {
 public:
  explicit EngineModel(std::shared_ptr<EngineModelImpl> model) : ModuleHolder(std::move(model)) {}

  /// Implicit: one of them is any of them.
  template <typename Impl>
  EngineModel(const torch::nn::ModuleHolder<Impl>& model)
      : EngineModel(std::shared_ptr<EngineModelImpl>(model.ptr())) {}
};

/// Whose the rows of a step are, for taps.
PassRows rows_of(const Step& step);

/// Of the tokens of a step, in order -> int64 [T].
torch::Tensor positions_of(const Step& step, torch::Device device);

}  // namespace gemma
