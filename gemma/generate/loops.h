#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include <gemma/engine/model_runner.h>
#include <gemma/generate/continuations.h>
#include <gemma/generate/options.h>
#include <gemma/generate/request.h>
#include <gemma/models/language_model.h>

namespace gemma {

/// float32 [1 or B, 1, L, S], added to the scores; the second is for local layers.
using Masks = std::pair<at::Tensor, std::optional<at::Tensor>>;

/// What the models differ in.
struct ModelInputs {
  /// Of the reference's loop: tokens [B, L] -> [B, L, E]. The first call has the tokens up to the
  /// end of the shortest prompt.
  std::function<at::Tensor(const at::Tensor& token_ids)> embed;
  /// Likewise: positions [L] -> their rows of the masks.
  std::function<Masks(const at::Tensor& positions)> masks;
  /// Of the engine's: the images of each prompt; or empty.
  std::vector<std::vector<ImageTokens>> images;
};

/// `options` for the prompt `row` of several when it goes alone: its callbacks get that row.
/// `options` has to outlive the result.
GenerateOptions options_for_row(const GenerateOptions& options, int64_t row);

/// Continues the prompts with the model's numerics -> the tokens that they are continued by. Throws
/// std::invalid_argument for a `device` that is not the weights'.
TokenRows generate_tokens(LanguageModelImpl& model,
                          torch::Device device,
                          const GenerateRequest& request,
                          const ModelInputs& inputs,
                          const GenerateOptions& options);

/// model.py: GemmaForCausalLM.generate, and gemma3_model.py: Gemma3ForMultimodalLM.generate, step
/// for step, up to the texts.
void generate_exact(LanguageModelImpl& model,
                    torch::Device device,
                    const GenerateRequest& request,
                    const ModelInputs& inputs,
                    const GenerateOptions& options,
                    Continuations& continuations);

/// The same on a ModelRunner: prompts go through whole, and texts that have ended no more. `images`
/// are those of each prompt, or empty.
void generate_fast(LanguageModelImpl& model,
                   const GenerateRequest& request,
                   const std::vector<std::vector<ImageTokens>>& images,
                   const GenerateOptions& options,
                   Continuations& continuations);

}  // namespace gemma
