#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/models/causal_lm.h>
#include <gemma/modules/masks.h>
#include <gemma/ops/rotary.h>

namespace gemma {
namespace {

using TokenRows = std::vector<std::vector<int64_t>>;

struct PromptLengths {
  int64_t min, max;
};

PromptLengths lengths_of(const TokenRows& rows) {
  const auto [shortest, longest] = std::minmax_element(
      rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
  return {static_cast<int64_t>(shortest->size()), static_cast<int64_t>(longest->size())};
}

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

// Rows padded to `length`, [rows, length].
at::Tensor padded(const TokenRows& rows, int64_t length, int64_t pad_id) {
  auto ids = at::full({static_cast<int64_t>(rows.size()), length}, pad_id, at::kLong);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto row = ids[static_cast<int64_t>(i)];
    row.narrow(0, 0, static_cast<int64_t>(rows[i].size())).copy_(at::tensor(rows[i], at::kLong));
  }
  return ids;
}

// The output of one row: at most `output_len` tokens after the prompt, to before the first eos.
std::vector<int64_t> trimmed(const at::Tensor& row,
                             size_t prompt_len,
                             int64_t output_len,
                             int64_t eos_id) {
  const auto* const begin = row.const_data_ptr<int64_t>() + prompt_len;
  const auto* const end = std::min(begin + output_len, row.const_data_ptr<int64_t>() + row.size(0));
  return {begin, std::find(begin, end, eos_id)};
}

}  // namespace

GemmaForCausalLMImpl::GemmaForCausalLMImpl(const GemmaConfig& config) : config_(config) {
  validate(config);
  if (config.hidden_size % config.num_attention_heads != 0) {
    throw std::invalid_argument(
        fmt::format("GemmaConfig: hidden_size ({}) must be a multiple of num_attention_heads ({})",
                    config.hidden_size, config.num_attention_heads));
  }
  if (config.tokenizer) tokenizer_.emplace(*config.tokenizer);
  embedder =
      register_module("embedder", Embedding(config.vocab_size, config.hidden_size, config.quant));
  model = register_module("model", GemmaModel(config));
  sampler = register_module("sampler", Sampler(config.vocab_size, config));
  register_freqs_cis();
}

void GemmaForCausalLMImpl::register_freqs_cis() {
  const auto table = [this](int64_t theta) {
    return precompute_freqs_cis(config_.head_dim, config_.max_position_embeddings * 2,
                                static_cast<double>(theta));
  };
  constexpr int64_t kDefaultTheta = 10'000;
  if (config_.architecture != Architecture::kGemma3) {
    freqs_cis = register_buffer("freqs_cis", table(kDefaultTheta));
    return;
  }
  // rope_scaling_factor is not applied: neither does the reference's text model.
  const auto theta_of = [this](AttentionType type) {
    const auto found = config_.rope_wave_length->find(type);
    return found == config_.rope_wave_length->end() ? kDefaultTheta : found->second;
  };
  local_freqs_cis =
      register_buffer("local_freqs_cis", table(theta_of(AttentionType::kLocalSliding)));
  global_freqs_cis = register_buffer("global_freqs_cis", table(theta_of(AttentionType::kGlobal)));
}

std::pair<torch::Tensor, torch::Tensor> GemmaForCausalLMImpl::forward(
    const torch::Tensor& input_token_ids,
    const torch::Tensor& input_positions,
    const std::optional<torch::Tensor>& /*kv_write_indices*/,
    const std::vector<KVCache>& kv_caches,
    const torch::Tensor& mask,
    const torch::Tensor& output_positions,
    const std::optional<torch::Tensor>& temperatures,
    const torch::Tensor& top_ps,
    const torch::Tensor& top_ks,
    const std::optional<torch::Tensor>& local_mask) {
  const torch::NoGradGuard no_grad;
  FreqsCis freqs;
  if (config_.architecture == Architecture::kGemma3) {
    freqs[AttentionType::kLocalSliding] = local_freqs_cis.index_select(0, input_positions);
    freqs[AttentionType::kGlobal] = global_freqs_cis.index_select(0, input_positions);
  } else {
    const auto rows = freqs_cis.index_select(0, input_positions);
    freqs = {{AttentionType::kLocalSliding, rows}, {AttentionType::kGlobal, rows}};
  }

  auto hidden_states = embedder(input_token_ids);  // [B, L, E]
  // Rounded to the activations' dtype: in bfloat16, sqrt(3072) is 55.5.
  const auto normalizer = at::scalar_tensor(std::pow(static_cast<double>(config_.hidden_size), 0.5),
                                            hidden_states.options());
  hidden_states = hidden_states * normalizer;

  hidden_states = model(hidden_states, freqs, input_positions, kv_caches, mask, local_mask);
  return sampler(embedder->operand(), hidden_states, output_positions, temperatures, top_ps, top_ks,
                 std::nullopt);
}

std::vector<std::string> GemmaForCausalLMImpl::generate(const std::vector<std::string>& prompts,
                                                        torch::Device device,
                                                        int64_t output_len,
                                                        std::optional<double> temperature,
                                                        double top_p,
                                                        int64_t top_k,
                                                        const StepCallback& on_step) {
  const torch::NoGradGuard no_grad;
  check_sampling(output_len, temperature, top_p, top_k);
  if (prompts.empty()) throw std::invalid_argument("generate: prompts is empty; give at least one");
  TokenRows prompt_tokens;
  for (const auto& prompt : prompts) prompt_tokens.push_back(tokenizer().encode(prompt));
  const auto batch_size = static_cast<int64_t>(prompts.size());
  const auto [min_prompt_len, max_prompt_len] = lengths_of(prompt_tokens);
  // Not by their sum, which an absurd output_len would overflow.
  if (output_len > config_.max_position_embeddings - max_prompt_len) {
    throw std::invalid_argument(fmt::format(
        "generate: a prompt of {} tokens and an output of {} exceed max_position_embeddings, {}",
        max_prompt_len, output_len, config_.max_position_embeddings));
  }
  const auto max_seq_len = max_prompt_len + output_len;
  auto kv_caches = make_kv_caches(batch_size, max_seq_len, device);

  const auto token_ids = padded(prompt_tokens, max_seq_len, tokenizer().pad_id()).to(device);
  const auto prompt_mask = token_ids != tokenizer().pad_id();
  const auto options = token_ids.options();
  const auto floats = options.dtype(at::kFloat);
  const auto temperatures = temperature.value_or(0) == 0
                                ? std::nullopt
                                : std::optional(at::full({batch_size}, *temperature, floats));
  const auto top_ps = at::full({batch_size}, top_p, floats);
  const auto top_ks = at::full({batch_size}, top_k, options);

  auto input_ids = token_ids.narrow(1, 0, min_prompt_len).contiguous();
  auto positions = at::arange(min_prompt_len, options);
  auto output_positions = at::full({1}, min_prompt_len - 1, options);

  // One pass over the tokens that all prompts have, then a token a step. Longer prompts are fed on
  // through these steps, and what was drawn for them is dropped, but the draw is made: the random
  // numbers that later steps see depend on it.
  for (int64_t index = min_prompt_len; index < max_seq_len; ++index) {
    const auto local_mask = config_.sliding_window_size
                                ? std::optional(sliding_window_mask(positions, max_seq_len,
                                                                    *config_.sliding_window_size))
                                : std::nullopt;
    const auto next_token_ids =
        forward(input_ids, positions, std::nullopt, kv_caches, causal_mask(positions, max_seq_len),
                output_positions, temperatures, top_ps, top_ks, local_mask)
            .first;

    const auto slot = token_ids.select(1, index);  // [B]
    slot.copy_(at::where(prompt_mask.select(1, index), slot, next_token_ids));
    input_ids = slot.unsqueeze(1);
    positions = at::full({1}, index, options);
    output_positions = at::zeros({1}, options);
    if (on_step) on_step(index - min_prompt_len);
  }

  const auto rows = token_ids.cpu();
  std::vector<std::string> results;
  results.reserve(prompt_tokens.size());
  for (size_t i = 0; i < prompt_tokens.size(); ++i) {
    results.push_back(tokenizer().decode(trimmed(
        rows[static_cast<int64_t>(i)], prompt_tokens[i].size(), output_len, tokenizer().eos_id())));
  }
  return results;
}

std::string GemmaForCausalLMImpl::generate(const std::string& prompt,
                                           torch::Device device,
                                           int64_t output_len,
                                           std::optional<double> temperature,
                                           double top_p,
                                           int64_t top_k,
                                           const StepCallback& on_step) {
  return generate(std::vector{prompt}, device, output_len, temperature, top_p, top_k, on_step)
      .front();
}

LoadReport GemmaForCausalLMImpl::load_weights(const std::string& model_path,
                                              const ProgressCallback& progress) {
  return gemma::load_weights(*this, Checkpoint::open(model_path), progress);
}

std::vector<KVCache> GemmaForCausalLMImpl::make_kv_caches(int64_t batch_size,
                                                          int64_t max_seq_len,
                                                          torch::Device device) const {
  const auto dtype = config_.get_dtype();
  const auto weights =
      embedder->weight_scaler.defined() ? embedder->weight_scaler : embedder->weight;
  if (weights.scalar_type() != dtype) {
    throw std::invalid_argument(fmt::format(
        "generate: the weights are {} but config.dtype, the KV cache's, is {}; construct the model "
        "with that default dtype, or set config.dtype",
        c10::toString(weights.scalar_type()), config_.dtype));
  }
  if (weights.device().type() != device.type()) {
    throw std::invalid_argument(fmt::format("generate: device is {} but the weights are on {}",
                                            device.str(), weights.device().str()));
  }
  const auto zeros = [&] {
    return at::zeros({batch_size, max_seq_len, config_.num_key_value_heads, config_.head_dim},
                     at::TensorOptions().dtype(dtype).device(device));
  };
  std::vector<KVCache> caches;
  caches.reserve(static_cast<size_t>(config_.num_hidden_layers));
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i) caches.push_back({zeros(), zeros()});
  return caches;
}

const Tokenizer& GemmaForCausalLMImpl::tokenizer() const {
  if (!tokenizer_) {
    throw std::logic_error(
        "GemmaForCausalLM: no tokenizer; set config.tokenizer before constructing the model");
  }
  return *tokenizer_;
}

}  // namespace gemma
