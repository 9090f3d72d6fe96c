#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <c10/core/ScalarType.h>

#include <gemma/config/vision_config.h>

namespace gemma {

/// config.py: AttentionType.
enum class AttentionType { kGlobal = 1, kLocalSliding = 2 };

/// config.py: Architecture.
enum class Architecture { kGemma1 = 1, kGemma2 = 2, kGemma3 = 3 };

/// The reference's spelling: "GLOBAL", "LOCAL_SLIDING"; "GEMMA_1" to "GEMMA_3".
/// Throws std::invalid_argument for a value that is not an enumerator.
std::string_view to_string(AttentionType type);
std::string_view to_string(Architecture architecture);

/// "float16", "float" or "float32", "bfloat16"; anything else throws std::invalid_argument.
c10::ScalarType dtype_from_string(std::string_view name);

/// The name that dtype_from_string reads back; "float32" for kFloat.
std::string_view dtype_to_string(c10::ScalarType dtype);

/// config.py: GemmaConfig. Fields, order and defaults (those of 7b) are the reference's.
struct GemmaConfig {
  Architecture architecture = Architecture::kGemma1;
  /// Rows of the embedding, V.
  int64_t vocab_size = 256000;
  /// Longest prompt plus output, in tokens.
  int64_t max_position_embeddings = 8192;
  int64_t num_hidden_layers = 28;
  /// Query heads, H.
  int64_t num_attention_heads = 16;
  /// Key/value heads, K; divides H.
  int64_t num_key_value_heads = 16;
  /// E.
  int64_t hidden_size = 3072;
  int64_t intermediate_size = 24576;
  /// D; independent of hidden_size / num_attention_heads.
  int64_t head_dim = 256;
  double rms_norm_eps = 1e-6;
  /// The KV cache's dtype. Weights take LibTorch's default dtype at construction, as in model.py.
  std::string dtype = "bfloat16";
  /// int8 weights with one scale a row.
  bool quant = false;
  /// Path of the SentencePiece model.
  std::optional<std::string> tokenizer = "tokenizer/tokenizer.model";
  /// Layer i has type attn_types[i % size]; all layers are global when absent.
  std::optional<std::vector<AttentionType>> attn_types = std::nullopt;
  /// Keys that a local layer sees, the token itself included.
  std::optional<int64_t> sliding_window_size = std::nullopt;
  std::optional<double> final_logit_softcapping = std::nullopt;
  std::optional<double> attn_logit_softcapping = std::nullopt;
  /// Queries are scaled by this to the power -1/2; head_dim when absent.
  std::optional<int64_t> query_pre_attn_scalar = std::nullopt;
  bool use_pre_ffw_norm = false;
  bool use_post_ffw_norm = false;
  /// Base of the rotary embedding for each type of attention (Gemma 3).
  std::optional<std::map<AttentionType, int64_t>> rope_wave_length = std::nullopt;
  /// RMSNorm of queries and keys over D.
  bool use_qk_norm = false;
  std::optional<SiglipVisionModelConfig> vision_config = std::nullopt;
  /// Divides the rotary frequencies of global layers.
  std::optional<int64_t> rope_scaling_factor = std::nullopt;

  /// `dtype` as LibTorch's type.
  // Differs from model.py: an unknown name throws std::invalid_argument (there: None).
  c10::ScalarType get_dtype() const;

  /// The type of layer i.
  AttentionType attn_type(int64_t layer) const;

  bool operator==(const GemmaConfig&) const = default;
};

/// Throws std::invalid_argument, naming the field, when no model can be built from `config`.
void validate(const GemmaConfig& config);

GemmaConfig get_config_for_7b(const std::string& dtype = "bfloat16");
GemmaConfig get_config_for_2b(const std::string& dtype = "bfloat16");
GemmaConfig get_config_for_2b_v2(const std::string& dtype = "bfloat16");
GemmaConfig get_config_for_9b(const std::string& dtype = "bfloat16");
GemmaConfig get_config_for_27b(const std::string& dtype = "bfloat16");
GemmaConfig get_config_for_270m(const std::string& dtype);
GemmaConfig get_config_for_1b(const std::string& dtype);
GemmaConfig get_config_for_4b(const std::string& dtype);
GemmaConfig get_config_for_12b(const std::string& dtype);
GemmaConfig get_config_for_27b_v3(const std::string& dtype);

/// The names get_model_config takes: the reference's nine and "270m", smallest first within a
/// generation, and "vaultgemma-1b".
std::vector<std::string> model_variants();

/// config.py: get_model_config. Throws std::invalid_argument for an unknown variant or dtype,
/// listing the valid ones.
GemmaConfig get_model_config(std::string_view variant, const std::string& dtype = "bfloat16");

}  // namespace gemma
