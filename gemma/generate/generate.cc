#include <stdexcept>

#include <gemma/generate/causal_lm.h>
#include <gemma/generate/engine_loop.h>
#include <gemma/generate/generate.h>
#include <gemma/generate/multimodal_lm.h>
#include <gemma/generate/paligemma.h>

namespace gemma {
namespace {

std::string text_of(const Prompt& prompt) {
  std::string text;
  for (const auto& part : prompt) {
    if (!std::holds_alternative<std::string>(part)) {
      throw std::invalid_argument(
          "generate: this model reads text only, but a prompt has an image");
    }
    text += std::get<std::string>(part);
  }
  return text;
}

}  // namespace

std::vector<std::string> generate(const EngineModel& model,
                                  std::span<const Prompt> prompts,
                                  torch::Device device,
                                  int64_t output_len,
                                  std::optional<double> temperature,
                                  double top_p,
                                  int64_t top_k,
                                  const GenerateOptions& options) {
  if (auto* multimodal = dynamic_cast<Gemma3ForMultimodalLMImpl*>(model.ptr().get())) {
    return multimodal->generate(prompts, device, output_len, temperature, top_p, top_k, options);
  }
  if (auto* pali = dynamic_cast<PaliGemmaForConditionalGenerationImpl*>(model.ptr().get())) {
    return pali->generate(prompts, device, output_len, temperature, top_p, top_k, options);
  }
  std::vector<std::string> texts;
  for (const auto& prompt : prompts) texts.push_back(text_of(prompt));
  if (auto* causal = dynamic_cast<GemmaForCausalLMImpl*>(model.ptr().get())) {
    return causal->generate(texts, device, output_len, temperature, top_p, top_k, options);
  }
  return generate_on_engine(model, texts, output_len, temperature, top_p, top_k, options);
}

}  // namespace gemma
