#include <gemma/generate/causal_lm.h>
#include <gemma/generate/make_model.h>
#include <gemma/generate/multimodal_lm.h>

namespace gemma {

LanguageModel make_model(const GemmaConfig& config) {
  if (config.vision_config) return Gemma3ForMultimodalLM(config);
  return GemmaForCausalLM(config);
}

}  // namespace gemma
