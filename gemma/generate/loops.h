#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <gemma/generate/continuations.h>
#include <gemma/models/causal_lm.h>

namespace gemma {

using TokenRows = std::vector<std::vector<int64_t>>;

struct GenerateRequest {
  TokenRows prompts;  // At least one, none empty.
  int64_t output_len;
  std::optional<double> temperature;  // None: always the likeliest token.
  double top_p;
  int64_t top_k;

  int64_t min_prompt_len() const;
  int64_t max_prompt_len() const;
  int64_t max_seq_len() const { return max_prompt_len() + output_len; }
  /// The same for each of the prompts, on `device`.
  SamplingParams sampling_params(torch::Device device) const;
};

/// model.py: GemmaForCausalLM.generate, step for step, up to the texts.
void generate_exact(GemmaForCausalLMImpl& model,
                    torch::Device device,
                    const GenerateRequest& request,
                    const GenerateOptions& options,
                    Continuations& continuations);

/// The same on an Engine: prompts go through whole, and texts that have ended no more.
void generate_fast(GemmaForCausalLMImpl& model,
                   const GenerateRequest& request,
                   const GenerateOptions& options,
                   Continuations& continuations);

}  // namespace gemma
