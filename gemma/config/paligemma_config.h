#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <gemma/config/config.h>
#include <gemma/config/vision_config.h>

namespace gemma {

/// transformers: PaliGemmaConfig. SigLIP without pooling, and a Gemma 1 or 2 that continues its
/// patches and a text.
struct PaliGemmaConfig {
  GemmaConfig text_config;
  /// encoding_sequence_length is that of one patch a token.
  SiglipVisionModelConfig vision_config;
  /// What a patch is projected to; the text model's hidden_size.
  int64_t projection_dim = 2048;
  /// Stands in prompts where an image does. It need not be in the vocabulary.
  int64_t image_token_id = 257'152;

  /// Tokens that one image becomes.
  int64_t image_seq_length() const;

  bool operator==(const PaliGemmaConfig&) const = default;
};

/// Throws std::invalid_argument, naming the field, for a text model that is no Gemma 1 or 2,
/// patches that do not fill the image, and a projection to another width.
void validate(const PaliGemmaConfig& config);

/// "paligemma-3b-224" to "paligemma2-28b-896": the published sizes, and the pixels of their images.
std::vector<std::string> paligemma_variants();

/// The config of one of them; without a tokenizer. Throws std::invalid_argument for another name or
/// dtype.
PaliGemmaConfig get_paligemma_config(std::string_view variant,
                                     const std::string& dtype = "bfloat16");

}  // namespace gemma
