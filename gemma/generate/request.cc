#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/generate/request.h>

namespace gemma {
// Differs from model.py: it takes any number and fails later, or draws from NaN.
void check_sampling(size_t num_prompts,
                    int64_t output_len,
                    std::optional<double> temperature,
                    double top_p,
                    int64_t top_k) {
  if (output_len < 0) {
    throw std::invalid_argument(
        fmt::format("generate: output_len is {}, but must be 0 or more tokens", output_len));
  }
  // As float32, which divides the logits.
  const auto divisor = static_cast<float>(temperature.value_or(0));
  if (!(divisor >= 0 && std::isfinite(divisor)) || (divisor == 0 && temperature.value_or(0) > 0)) {
    throw std::invalid_argument(
        fmt::format("generate: temperature is {}, but must be 0 (greedy) or a positive float32, "
                    "1e-45 to 3.4e38",
                    *temperature));
  }
  if (!(top_p >= 0)) {
    throw std::invalid_argument(
        fmt::format("generate: top_p is {}, but must be a probability, 0 to 1", top_p));
  }
  if (top_k < 1) {
    throw std::invalid_argument(
        fmt::format("generate: top_k is {}, but must keep at least 1 token", top_k));
  }
  if (num_prompts == 0) {
    throw std::invalid_argument("generate: prompts is empty; give at least one");
  }
}

std::vector<int64_t> GenerateRequest::prompt_lens() const {
  std::vector<int64_t> lengths;
  for (const auto& row : prompts) lengths.push_back(std::ssize(row));
  return lengths;
}

int64_t GenerateRequest::min_prompt_len() const { return std::ranges::min(prompt_lens()); }
int64_t GenerateRequest::max_prompt_len() const { return std::ranges::max(prompt_lens()); }

SamplingParams GenerateRequest::sampling_params(torch::Device device) const {
  const auto longs = at::TensorOptions().dtype(at::kLong).device(device);
  const auto floats = longs.dtype(at::kFloat);
  const auto rows = std::ssize(prompts);
  SamplingParams params{.temperatures = {},
                        .top_ps = at::full({rows}, top_p, floats),
                        .top_ks = at::full({rows}, top_k, longs)};
  if (temperature) params.temperatures = at::full({rows}, *temperature, floats);
  return params;
}

int64_t GenerateRequest::max_seq_len() const {
  int64_t most = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    most = std::max(most, std::ssize(prompts[i]) + output_lens[i]);
  }
  return most;
}

GenerateRequest make_request(TokenRows prompts,
                             int64_t output_len,
                             std::optional<double> temperature,
                             double top_p,
                             int64_t top_k) {
  const auto count = prompts.size();
  return {.prompts = std::move(prompts),
          .output_lens = std::vector<int64_t>(count, output_len),
          .temperature = temperature.value_or(0) == 0 ? std::nullopt : temperature,
          .top_p = top_p,
          .top_k = top_k};
}

void check_lengths(int64_t max_prompt_len, int64_t output_len, const GemmaConfig& config) {
  // Not by their sum, which an absurd output_len would overflow.
  if (output_len <= config.max_position_embeddings - max_prompt_len) return;
  throw std::invalid_argument(fmt::format(
      "generate: a prompt of {} tokens and an output of {} exceed max_position_embeddings, {}",
      max_prompt_len, output_len, config.max_position_embeddings));
}

}  // namespace gemma
