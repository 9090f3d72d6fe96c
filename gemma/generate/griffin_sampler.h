#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <torch/types.h>

#include <gemma/models/griffin.h>
#include <gemma/text/tokenizer.h>

namespace gemma::recurrentgemma {

/// recurrentgemma/torch/sampler.py: SamplerOutput. One of each a text.
struct SamplerOutput {
  std::vector<std::string> text;
  std::vector<torch::Tensor> logits;  // [tokens, V] each, in the weights' dtype; none unless asked
  std::vector<torch::Tensor> tokens;  // [tokens] each, int32
};

/// The reference's flags of a call.
struct SamplerOptions {
  /// Whether the prompt comes before its continuation.
  bool echo = false;
  /// Whether the logits that tokens were drawn from are returned; with echo, the prompt's too.
  bool return_logits = false;
  /// Whether eos ends the text, which works for a single prompt alone, as in the reference.
  bool end_sampling_at_eos_token = true;
  /// After each block of the model.
  LayerCallback on_block = {};
};

/// recurrentgemma/torch/sampler.py: Sampler. Continues texts with a Griffin.
class Sampler {
 public:
  /// `vocab` has to live as long. greedy_sampling: always the likeliest token, else draws from
  /// LibTorch's default generator, at temperature 1. is_it_model: prompts become a user's turn.
  Sampler(Griffin model,
          const Tokenizer& vocab,
          bool greedy_sampling = true,
          bool is_it_model = false);

  /// Continues each text by total_generation_steps tokens. Of several prompts the shorter ones are
  /// padded on the left; without `echo` they then lose as many of their new tokens as they were
  /// padded by, as in the reference. Throws std::invalid_argument for negative steps and for no
  /// prompts.
  SamplerOutput operator()(const std::vector<std::string>& input_strings,
                           int64_t total_generation_steps,
                           const SamplerOptions& options = {});

  /// bos and the text's tokens: int32 [tokens], where the weights are.
  torch::Tensor tokenize(std::string_view input_string) const;

  const Griffin& model() const { return model_; }
  torch::Dtype dtype() const { return model_->embedder->input_embedding.scalar_type(); }
  torch::Device device() const { return model_->embedder->input_embedding.device(); }
  int64_t vocab_size() const { return model_->config().vocab_size; }
  bool greedy_sampling() const { return greedy_sampling_; }

 private:
  struct State;

  torch::Tensor sample_from_logits(const torch::Tensor& logits) const;
  torch::Tensor padded(const std::vector<torch::Tensor>& tokens) const;
  State process_prompt(const torch::Tensor& tokens,
                       const torch::Tensor& input_lengths,
                       int64_t total_generation_steps,
                       const SamplerOptions& options);
  void sample_step(State& state, const SamplerOptions& options);

  Griffin model_;
  const Tokenizer* vocab_;
  bool greedy_sampling_;
  bool is_it_model_;
};

}  // namespace gemma::recurrentgemma
