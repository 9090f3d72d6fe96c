#pragma once

#include <gemma/models/language_model.h>

namespace gemma {

/// The model that `config` describes: Gemma3ForMultimodalLM if it has a vision_config, else
/// GemmaForCausalLM. Throws as their constructors do.
LanguageModel make_model(const GemmaConfig& config);

}  // namespace gemma
