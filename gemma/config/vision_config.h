#pragma once

#include <cstdint>
#include <string>

namespace gemma {

/// siglip_vision/config.py: SiglipVisionModelConfig.
struct SiglipVisionModelConfig {
  int64_t num_hidden_layers = 27;
  int64_t embedding_dim = 1152;
  bool embedding_use_bias = true;
  int64_t input_channels = 3;
  /// Height and width in pixels.
  int64_t image_size = 896;
  int64_t conv2d_patch_size = 14;
  int64_t num_attention_heads = 16;
  int64_t head_dim = 72;
  int64_t num_key_value_heads = 16;
  int64_t num_query_groups = 16;
  bool qkv_use_bias = true;
  bool output_proj_use_bias = true;
  int64_t intermediate_size = 4304;
  double layer_norm_eps = 1e-6;
  std::string dtype = "bfloat16";
  bool quant = false;
  /// Tokens that one image becomes.
  int64_t encoding_sequence_length = 256;

  bool operator==(const SiglipVisionModelConfig&) const = default;
};

}  // namespace gemma
