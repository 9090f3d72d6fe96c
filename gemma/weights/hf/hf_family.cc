#include <gemma/weights/hf/hf_family.h>

namespace gemma {

HfFamily hf_family(Architecture architecture) {
  if (architecture == Architecture::kGemma1) {
    return {"gemma", "GemmaForCausalLM", GemmaConfig{}, architecture};
  }
  GemmaConfig config{.architecture = architecture,
                     .num_hidden_layers = 26,
                     .num_attention_heads = 8,
                     .num_key_value_heads = 4,
                     .hidden_size = 2304,
                     .intermediate_size = 9216,
                     .sliding_window_size = 4096,
                     .query_pre_attn_scalar = 256,
                     .use_pre_ffw_norm = true,
                     .use_post_ffw_norm = true};
  if (architecture == Architecture::kGemma2) {
    config.final_logit_softcapping = 30.0;
    config.attn_logit_softcapping = 50.0;
    return {"gemma2", "Gemma2ForCausalLM", config, architecture};
  }
  config.vocab_size = 262144;
  config.max_position_embeddings = 131072;
  config.rope_wave_length = {{AttentionType::kLocalSliding, kHfLocalTheta},
                             {AttentionType::kGlobal, kHfGlobalTheta}};
  config.use_qk_norm = true;
  return {"gemma3_text", "Gemma3ForCausalLM", config, architecture};
}

HfFamily hf_vaultgemma() {
  auto config = hf_family(Architecture::kGemma2).defaults;
  config.architecture = Architecture::kGemma1;
  config.use_pre_ffw_norm = config.use_post_ffw_norm = false;
  return {"vaultgemma", "VaultGemmaForCausalLM", config, Architecture::kGemma2};
}

}  // namespace gemma
