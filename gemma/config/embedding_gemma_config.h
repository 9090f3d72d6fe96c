#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <gemma/config/config.h>

namespace gemma {

/// What an EmbeddingGemma is made of: layers of Gemma 3 whose tokens see the whole text, the mean
/// of what comes out of them, and linear layers behind it.
struct EmbeddingGemmaConfig {
  /// sliding_window_size is what a token of a local layer sees on each side, itself included.
  GemmaConfig text;
  /// Numbers that come out of each linear layer, in order.
  std::vector<int64_t> dense_features = {3072, 768};
  /// What is put before a text for a task, by the task's name.
  std::map<std::string, std::string> prompts;
  /// The task of texts for which none is named; none: nothing is put before them.
  std::optional<std::string> default_prompt_name = std::nullopt;

  /// Numbers of an embedding.
  int64_t dim() const { return dense_features.empty() ? text.hidden_size : dense_features.back(); }

  bool operator==(const EmbeddingGemmaConfig&) const = default;
};

/// EmbeddingGemma 300M, without prompts, which its directory says.
EmbeddingGemmaConfig get_config_for_embedding_gemma_300m(const std::string& dtype = "float32");

/// Throws std::invalid_argument, naming the field, when no model can be built from `config`.
void validate(const EmbeddingGemmaConfig& config);

}  // namespace gemma
