#include <algorithm>
#include <stdexcept>

#include <fmt/format.h>

#include <gemma/config/embedding_gemma_config.h>

namespace gemma {

EmbeddingGemmaConfig get_config_for_embedding_gemma_300m(const std::string& dtype) {
  constexpr auto kLocal = AttentionType::kLocalSliding;
  constexpr auto kGlobal = AttentionType::kGlobal;
  return {.text = {.architecture = Architecture::kGemma3,
                   .vocab_size = 262144,
                   .max_position_embeddings = 2048,
                   .num_hidden_layers = 24,
                   .num_attention_heads = 3,
                   .num_key_value_heads = 1,
                   .hidden_size = 768,
                   .intermediate_size = 1152,
                   .head_dim = 256,
                   .dtype = dtype,
                   .tokenizer = std::nullopt,
                   .attn_types = {{kLocal, kLocal, kLocal, kLocal, kLocal, kGlobal}},
                   .sliding_window_size = 257,
                   .use_pre_ffw_norm = true,
                   .use_post_ffw_norm = true,
                   .rope_wave_length = {{{kLocal, 10'000}, {kGlobal, 1'000'000}}},
                   .use_qk_norm = true},
          .prompts = {}};
}

void validate(const EmbeddingGemmaConfig& config) {
  validate(config.text);
  if (config.text.architecture != Architecture::kGemma3) {
    throw std::invalid_argument(
        fmt::format("EmbeddingGemmaConfig: text.architecture is {}, but must be GEMMA_3",
                    to_string(config.text.architecture)));
  }
  if (config.text.quant) {
    throw std::invalid_argument("EmbeddingGemmaConfig: text.quant is true, but must be false");
  }
  for (const auto features : config.dense_features) {
    if (features < 1) {
      throw std::invalid_argument(fmt::format(
          "EmbeddingGemmaConfig: dense_features holds {}, but each must be at least 1", features));
    }
  }
  const auto& name = config.default_prompt_name;
  if (name && !config.prompts.contains(*name)) {
    throw std::invalid_argument(fmt::format(
        "EmbeddingGemmaConfig: default_prompt_name is '{}', which is none of the prompts", *name));
  }
}

}  // namespace gemma
