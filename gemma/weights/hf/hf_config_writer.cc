#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <gemma/config/fields.h>
#include <gemma/weights/hf/hf_config.h>
#include <gemma/weights/hf/hf_family.h>

namespace gemma {
namespace {

using nlohmann::ordered_json;

constexpr auto kLocal = AttentionType::kLocalSliding;
constexpr auto kGlobal = AttentionType::kGlobal;

void require(bool holds, std::string_view field, std::string_view what) {
  if (holds) return;
  throw std::invalid_argument(fmt::format(
      "config_to_hf: GemmaConfig.{} {}, which transformers does not have", field, what));
}

void check_is_theirs(const GemmaConfig& config) {
  validate(config);
  const bool is_gemma1 = config.architecture == Architecture::kGemma1;
  const bool is_gemma3 = config.architecture == Architecture::kGemma3;
  require(!config.quant, "quant", "is set");
  require(config.use_pre_ffw_norm != is_gemma1, "use_pre_ffw_norm", "is not the family's");
  require(config.use_post_ffw_norm != is_gemma1, "use_post_ffw_norm", "is not the family's");
  require(config.use_qk_norm == is_gemma3, "use_qk_norm", "is not the family's");
  if (!is_gemma1) return;
  require(!config.query_pre_attn_scalar, "query_pre_attn_scalar", "is set for Gemma 1");
  require(!config.attn_types && !config.sliding_window_size, "attn_types", "are set for Gemma 1");
  require(!config.attn_logit_softcapping && !config.final_logit_softcapping,
          "final_logit_softcapping", "or that of attention is set for Gemma 1");
}

template <typename T>
  requires std::is_arithmetic_v<T>
ordered_json number(T value) {
  return value;
}

template <typename T>
  requires std::is_arithmetic_v<T>
ordered_json number(const std::optional<T>& value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

// What stands in the file as in the config.
template <typename Config>
void write_plain(const Config& config, Architecture architecture, ordered_json& out) {
  visit_fields<Config>([&](const auto& field) {
    if constexpr (requires { number(config.*field.member); }) {
      if (!field.hf.empty() && field.since <= architecture) {
        out[std::string(field.hf)] = number(config.*field.member);
      }
    }
  });
}

void write_rope(const GemmaConfig& config, ordered_json& out) {
  const auto theta = [&](AttentionType type) {
    if (!config.rope_wave_length) return kHfLocalTheta;
    const auto found = config.rope_wave_length->find(type);
    return found == config.rope_wave_length->end() ? kHfLocalTheta : found->second;
  };
  out["rope_theta"] = static_cast<double>(theta(kGlobal));
  if (config.architecture != Architecture::kGemma3) return;
  out["rope_local_base_freq"] = static_cast<double>(theta(kLocal));
  out["rope_scaling"] = nullptr;
  if (config.rope_scaling_factor) {
    out["rope_scaling"] = {{"rope_type", "linear"},
                           {"factor", static_cast<double>(*config.rope_scaling_factor)}};
  }
}

ordered_json write_text(const GemmaConfig& config) {
  ordered_json out;
  out["model_type"] = hf_family(config.architecture).model_type;
  write_plain(config, config.architecture, out);
  out["hidden_act"] = "gelu_pytorch_tanh";
  out["hidden_activation"] = "gelu_pytorch_tanh";
  out["attention_bias"] = false;
  out["attention_dropout"] = 0.0;
  write_rope(config, out);
  if (config.architecture == Architecture::kGemma1) return out;
  out["query_pre_attn_scalar"] = config.query_pre_attn_scalar.value_or(config.head_dim);
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    out["layer_types"].push_back(config.attn_type(i) == kLocal ? kHfLocalLayer : kHfGlobalLayer);
  }
  return out;
}

ordered_json write_vision(const SiglipVisionModelConfig& config) {
  ordered_json out;
  out["model_type"] = "siglip_vision_model";
  write_plain(config, Architecture::kGemma3, out);
  out["patch_size"] = config.conv2d_patch_size;
  out["vision_use_head"] = false;
  return out;
}

}  // namespace

std::string config_to_hf(const GemmaConfig& config) {
  check_is_theirs(config);
  ordered_json out;
  const bool is_multimodal = config.vision_config.has_value();
  out["architectures"] = {is_multimodal ? "Gemma3ForConditionalGeneration"
                                        : hf_family(config.architecture).architecture};
  const auto text = write_text(config);
  if (is_multimodal) {
    out["model_type"] = "gemma3";
    out["text_config"] = text;
    out["vision_config"] = write_vision(*config.vision_config);
    out["mm_tokens_per_image"] = config.vision_config->encoding_sequence_length;
    out["boi_token_index"] = 255999;
    out["eoi_token_index"] = 256000;
    out["image_token_index"] = 262144;
  } else {
    out.update(text);
  }
  out["dtype"] = out["torch_dtype"] = dtype_to_string(config.get_dtype());
  out["tie_word_embeddings"] = true;
  out["bos_token_id"] = 2;
  out["eos_token_id"] = 1;
  out["pad_token_id"] = 0;
  return out.dump(2) + "\n";
}

}  // namespace gemma
