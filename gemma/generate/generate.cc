#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/generate/loops.h>

namespace gemma {
namespace {

// Differs from model.py: it takes any number and fails later, or draws from NaN.
void check_sampling(int64_t output_len,
                    std::optional<double> temperature,
                    double top_p,
                    int64_t top_k) {
  if (output_len < 0) {
    throw std::invalid_argument(
        fmt::format("generate: output_len is {}, but must be 0 or more tokens", output_len));
  }
  if (temperature && !(*temperature >= 0 && std::isfinite(*temperature))) {
    throw std::invalid_argument(
        fmt::format("generate: temperature is {}, but must be 0 (greedy) or more", *temperature));
  }
  if (!(top_p >= 0)) {
    throw std::invalid_argument(
        fmt::format("generate: top_p is {}, but must be a probability, 0 to 1", top_p));
  }
  if (top_k < 1) {
    throw std::invalid_argument(
        fmt::format("generate: top_k is {}, but must keep at least 1 token", top_k));
  }
}

std::vector<int64_t> lengths_of(const TokenRows& rows) {
  std::vector<int64_t> lengths;
  for (const auto& row : rows) lengths.push_back(std::ssize(row));
  return lengths;
}

}  // namespace

int64_t GenerateRequest::min_prompt_len() const { return std::ranges::min(lengths_of(prompts)); }
int64_t GenerateRequest::max_prompt_len() const { return std::ranges::max(lengths_of(prompts)); }

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

std::vector<std::string> GemmaForCausalLMImpl::generate(const std::vector<std::string>& prompts,
                                                        torch::Device device,
                                                        int64_t output_len,
                                                        std::optional<double> temperature,
                                                        double top_p,
                                                        int64_t top_k,
                                                        const GenerateOptions& options) {
  const torch::NoGradGuard no_grad;
  check_sampling(output_len, temperature, top_p, top_k);
  if (prompts.empty()) throw std::invalid_argument("generate: prompts is empty; give at least one");
  GenerateRequest request{.prompts = {},
                          .output_len = output_len,
                          .temperature = temperature.value_or(0) == 0 ? std::nullopt : temperature,
                          .top_p = top_p,
                          .top_k = top_k};
  for (const auto& prompt : prompts) request.prompts.push_back(tokenizer().encode(prompt));
  // Not by their sum, which an absurd output_len would overflow.
  if (output_len > config_.max_position_embeddings - request.max_prompt_len()) {
    throw std::invalid_argument(fmt::format(
        "generate: a prompt of {} tokens and an output of {} exceed max_position_embeddings, {}",
        request.max_prompt_len(), output_len, config_.max_position_embeddings));
  }
  check_device(device);
  Continuations continuations(lengths_of(request.prompts), output_len, tokenizer().eos_id(),
                              options);
  if (numerics() == Numerics::kExact) {
    generate_exact(*this, device, request, options, continuations);
  } else {
    generate_fast(*this, request, options, continuations);
  }
  std::vector<std::string> results;
  for (const auto& text : continuations.texts()) results.push_back(tokenizer().decode(text));
  return results;
}

std::string GemmaForCausalLMImpl::generate(const std::string& prompt,
                                           torch::Device device,
                                           int64_t output_len,
                                           std::optional<double> temperature,
                                           double top_p,
                                           int64_t top_k,
                                           const GenerateOptions& options) {
  return generate(std::vector{prompt}, device, output_len, temperature, top_p, top_k, options)
      .front();
}

}  // namespace gemma
