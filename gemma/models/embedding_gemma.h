#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>

#include <gemma/config/embedding_gemma_config.h>
#include <gemma/models/gemma_model.h>
#include <gemma/modules/embedding.h>
#include <gemma/modules/linear.h>
#include <gemma/modules/module.h>
#include <gemma/text/tokenizer.h>
#include <gemma/weights/weights.h>

namespace gemma {

/// Token embedding and layers of Gemma 3, every token of which sees the whole text: before it and
/// after it, in local layers as far as the window.
class TextEncoderImpl : public Module {
 public:
  /// sliding_window_size is what a token sees on each side, itself included.
  explicit TextEncoderImpl(const GemmaConfig& config);

  /// Texts as token ids -> [T, E], the hidden states of all their tokens, one text after another.
  torch::Tensor forward(std::span<const std::vector<int64_t>> texts,
                        const LayerCallback& on_layer = {});

  std::string signature() const override { return "TextEncoder()"; }

  Embedding embedder{nullptr};
  GemmaModel model{nullptr};
  torch::Tensor local_freqs_cis;   // complex64 [max_position_embeddings, D / 2]
  torch::Tensor global_freqs_cis;  // Likewise.
};
TORCH_MODULE(TextEncoder);

/// sentence_transformers: Dense, without bias and activation.
class DenseImpl : public Module {
 public:
  DenseImpl(int64_t in_features, int64_t out_features);

  /// [N, in_features] -> [N, out_features].
  torch::Tensor forward(const torch::Tensor& x);

  std::string signature() const override { return "Dense()"; }

  Linear linear{nullptr};
};
TORCH_MODULE(Dense);

struct EmbedOptions {
  /// The first so many numbers of an embedding, of length 1 again; none: all.
  std::optional<int64_t> dim = std::nullopt;
  /// Which of config.prompts is put before each text; none: default_prompt_name.
  std::optional<std::string> prompt_name = std::nullopt;
  /// Whether a text that is longer than max_position_embeddings loses its end; else it is an error.
  bool truncate = false;
  /// After each layer of each pass; what it throws ends the computation.
  LayerCallback on_layer = {};
};

/// EmbeddingGemma: texts to vectors of length 1 whose scalar product says how near the texts'
/// meanings are. What SentenceTransformer.encode of sentence-transformers gives.
///
/// With exact numerics the layers are those of gemma_pytorch, and each text goes through them by
/// itself; fast ones take many together. A text has the same bits in any batch.
class EmbeddingGemmaImpl : public Module {
 public:
  /// Weights take the default dtype. Throws std::invalid_argument for a config that validate()
  /// refuses, FileNotFound when text.tokenizer names no file.
  explicit EmbeddingGemmaImpl(const EmbeddingGemmaConfig& config);

  /// Texts as token ids, bos and eos included -> float32 [N, dim], rows of length 1. Throws
  /// std::invalid_argument for a text without tokens, one of more than max_position_embeddings, and
  /// an id outside the vocabulary.
  torch::Tensor forward(const std::vector<std::vector<int64_t>>& texts,
                        const LayerCallback& on_layer = {});

  /// Texts -> float32 [N, dim], rows of length 1. Throws std::invalid_argument for a dim outside
  /// [1, config.dim()], an unknown prompt_name, and a text that is too long; std::logic_error when
  /// there is no tokenizer.
  torch::Tensor embed(const std::vector<std::string>& texts, const EmbedOptions& options = {});

  /// Embeddings, float32 [N, config.dim()] or one of them -> what embed() gives with this dim.
  torch::Tensor cut(const torch::Tensor& embeddings, std::optional<int64_t> dim) const;

  /// The ids that a text becomes: bos, prompt and text, eos. Throws as embed does.
  std::vector<int64_t> encode(const std::string& text, const EmbedOptions& options = {}) const;

  /// Loads a directory of sentence-transformers; throws as gemma::load_weights does, and then has
  /// loaded nothing, unless options.progress threw.
  LoadReport load_weights(const std::filesystem::path& directory, const LoadOptions& options = {});

  const EmbeddingGemmaConfig& config() const { return config_; }
  /// Throws std::logic_error when there is none.
  const Tokenizer& tokenizer() const;

  std::string signature() const override { return "EmbeddingGemma()"; }

  TextEncoder encoder{nullptr};
  torch::nn::ModuleList dense;  // Of DenseImpl.

 private:
  void check(const std::vector<std::vector<int64_t>>& texts) const;
  torch::Tensor embed_together(std::span<const std::vector<int64_t>> texts,
                               const LayerCallback& on_layer);

  EmbeddingGemmaConfig config_;
  std::optional<Tokenizer> tokenizer_;
};
TORCH_MODULE(EmbeddingGemma);

}  // namespace gemma
