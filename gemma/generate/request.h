#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <torch/types.h>

#include <gemma/config/config.h>
#include <gemma/ops/sampling_params.h>

namespace gemma {

using TokenRows = std::vector<std::vector<int64_t>>;

struct GenerateRequest {
  TokenRows prompts;                  // At least one, none empty.
  std::vector<int64_t> output_lens;   // Most tokens that each is continued by.
  std::optional<double> temperature;  // None: always the likeliest token.
  double top_p;
  int64_t top_k;

  std::vector<int64_t> prompt_lens() const;
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

}  // namespace gemma
