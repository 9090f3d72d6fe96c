#pragma once

#include <string_view>
#include <tuple>

#include <gemma/config/config.h>
#include <gemma/config/griffin_config.h>
#include <gemma/config/paligemma_config.h>

namespace gemma {

/// A member of a config and its names. Bindings, pickles, `gemma info`, the checks of a config and
/// the readers and writers of config.json and of GGUF walk the lists below.
template <typename Config, typename T>
struct Field {
  std::string_view name;  ///< The reference's.
  T Config::* member;
  /// In config.json; empty where a file of transformers says the value in another way, or not.
  std::string_view hf = {};
  /// In GGUF, behind the architecture's name; empty as above.
  std::string_view gguf = {};
  /// The first family whose files have it.
  Architecture since = Architecture::kGemma1;
};

namespace detail {

constexpr auto fields_of(const GemmaConfig*) {
  using C = GemmaConfig;
  constexpr auto kGemma2 = Architecture::kGemma2;
  return std::tuple{
      Field{"architecture", &C::architecture},
      Field{"vocab_size", &C::vocab_size, "vocab_size"},
      Field{"max_position_embeddings", &C::max_position_embeddings, "max_position_embeddings",
            "context_length"},
      Field{"num_hidden_layers", &C::num_hidden_layers, "num_hidden_layers", "block_count"},
      Field{"num_attention_heads", &C::num_attention_heads, "num_attention_heads",
            "attention.head_count"},
      Field{"num_key_value_heads", &C::num_key_value_heads, "num_key_value_heads",
            "attention.head_count_kv"},
      Field{"hidden_size", &C::hidden_size, "hidden_size", "embedding_length"},
      Field{"intermediate_size", &C::intermediate_size, "intermediate_size", "feed_forward_length"},
      Field{"head_dim", &C::head_dim, "head_dim", "attention.key_length"},
      Field{"rms_norm_eps", &C::rms_norm_eps, "rms_norm_eps", "attention.layer_norm_rms_epsilon"},
      Field{"dtype", &C::dtype},
      Field{"quant", &C::quant},
      Field{"tokenizer", &C::tokenizer},
      Field{"attn_types", &C::attn_types},
      Field{"sliding_window_size", &C::sliding_window_size, "sliding_window", "", kGemma2},
      Field{"final_logit_softcapping", &C::final_logit_softcapping, "final_logit_softcapping",
            "final_logit_softcapping", kGemma2},
      Field{"attn_logit_softcapping", &C::attn_logit_softcapping, "attn_logit_softcapping",
            "attn_logit_softcapping", kGemma2},
      Field{"query_pre_attn_scalar", &C::query_pre_attn_scalar, "query_pre_attn_scalar", "",
            kGemma2},
      Field{"use_pre_ffw_norm", &C::use_pre_ffw_norm},
      Field{"use_post_ffw_norm", &C::use_post_ffw_norm},
      Field{"rope_wave_length", &C::rope_wave_length},
      Field{"use_qk_norm", &C::use_qk_norm},
      Field{"vision_config", &C::vision_config},
      Field{"rope_scaling_factor", &C::rope_scaling_factor},
  };
}

// conv2d_patch_size is no field of the reference's dataclass and stands apart in the bindings.
constexpr auto fields_of(const SiglipVisionModelConfig*) {
  using C = SiglipVisionModelConfig;
  return std::tuple{
      Field{"num_hidden_layers", &C::num_hidden_layers, "num_hidden_layers"},
      Field{"embedding_dim", &C::embedding_dim, "hidden_size"},
      Field{"embedding_use_bias", &C::embedding_use_bias},
      Field{"input_channels", &C::input_channels, "num_channels"},
      Field{"image_size", &C::image_size, "image_size"},
      Field{"num_attention_heads", &C::num_attention_heads, "num_attention_heads"},
      Field{"head_dim", &C::head_dim},
      Field{"num_key_value_heads", &C::num_key_value_heads},
      Field{"num_query_groups", &C::num_query_groups},
      Field{"qkv_use_bias", &C::qkv_use_bias},
      Field{"output_proj_use_bias", &C::output_proj_use_bias},
      Field{"intermediate_size", &C::intermediate_size, "intermediate_size"},
      Field{"layer_norm_eps", &C::layer_norm_eps, "layer_norm_eps"},
      Field{"dtype", &C::dtype},
      Field{"quant", &C::quant},
      Field{"encoding_sequence_length", &C::encoding_sequence_length},
  };
}

constexpr auto fields_of(const PaliGemmaConfig*) {
  using C = PaliGemmaConfig;
  return std::tuple{
      Field{"text_config", &C::text_config},
      Field{"vision_config", &C::vision_config},
      Field{"projection_dim", &C::projection_dim, "projection_dim"},
      Field{"image_token_id", &C::image_token_id, "image_token_index"},
  };
}

constexpr auto fields_of(const recurrentgemma::GriffinConfig*) {
  using C = recurrentgemma::GriffinConfig;
  return std::tuple{
      Field{"vocab_size", &C::vocab_size, "vocab_size"},
      Field{"width", &C::width, "hidden_size"},
      Field{"mlp_expanded_width", &C::mlp_expanded_width},
      Field{"num_heads", &C::num_heads, "num_attention_heads"},
      Field{"block_types", &C::block_types},
      Field{"embeddings_scale_by_sqrt_dim", &C::embeddings_scale_by_sqrt_dim,
            "embeddings_scale_by_sqrt_dim"},
      Field{"attention_window_size", &C::attention_window_size, "attention_window_size"},
      Field{"logits_soft_cap", &C::logits_soft_cap, "logits_soft_cap"},
      Field{"lru_width", &C::lru_width, "lru_width"},
      Field{"scan_type", &C::scan_type},
  };
}

}  // namespace detail

/// Calls visit(field) for every Field of Config (GemmaConfig, SiglipVisionModelConfig,
/// PaliGemmaConfig, GriffinConfig) in the order of the reference.
template <typename Config, typename Visit>
void visit_fields(Visit&& visit) {
  std::apply([&](const auto&... field) { (visit(field), ...); },
             detail::fields_of(static_cast<const Config*>(nullptr)));
}

}  // namespace gemma
