#include <gemma/models/causal_lm.h>
#include <gemma/models/make_model.h>
#include <gemma/models/multimodal_lm.h>

namespace gemma {

LanguageModel make_model(const GemmaConfig& config) {
  if (config.vision_config) return Gemma3ForMultimodalLM(config);
  return GemmaForCausalLM(config);
}

}  // namespace gemma
