#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include <gemma/engine/engine.h>
#include <gemma/generate/continuations.h>
#include <gemma/models/language_model.h>

namespace gemma {

using TokenRows = std::vector<std::vector<int64_t>>;

struct GenerateRequest {
  TokenRows prompts;                  // At least one, none empty.
  std::vector<int64_t> output_lens;   // Most tokens that each is continued by.
  std::optional<double> temperature;  // None: always the likeliest token.
  double top_p;
  int64_t top_k;

  int64_t min_prompt_len() const;
  int64_t max_prompt_len() const;
  /// Of the longest prompt with its output.
  int64_t max_seq_len() const;
  /// The same for each of the prompts, on `device`.
  SamplingParams sampling_params(torch::Device device) const;
};

/// Throws std::invalid_argument for a parameter that is out of range, and without a prompt.
void check_sampling(size_t num_prompts,
                    int64_t output_len,
                    std::optional<double> temperature,
                    double top_p,
                    int64_t top_k);

/// Throws std::invalid_argument when prompt and output have no place in the model.
void check_lengths(int64_t max_prompt_len, int64_t output_len, const GemmaConfig& config);

/// A request that continues each prompt by output_len tokens; a temperature of 0 is none.
GenerateRequest make_request(TokenRows prompts,
                             int64_t output_len,
                             std::optional<double> temperature,
                             double top_p,
                             int64_t top_k);

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

/// Continues the prompts with the model's numerics -> the tokens that they are continued by. Throws
/// std::invalid_argument for a `device` that is not the weights'.
TokenRows run_request(LanguageModelImpl& model,
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

/// The same on an Engine: prompts go through whole, and texts that have ended no more. `images`
/// are those of each prompt, or empty.
void generate_fast(LanguageModelImpl& model,
                   const GenerateRequest& request,
                   const std::vector<std::vector<ImageTokens>>& images,
                   const GenerateOptions& options,
                   Continuations& continuations);

}  // namespace gemma
