#include <algorithm>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/generate/griffin_sampler.h>

namespace gemma::recurrentgemma {
namespace {

// recurrentgemma/common.py: apply_it_formatter.
std::string as_turn(std::string_view text) {
  return fmt::format("<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n", text);
}

// Rows without the padding in front of them.
std::vector<torch::Tensor> without_padding(const torch::Tensor& rows,
                                           const std::vector<int64_t>& padding) {
  std::vector<torch::Tensor> out;
  for (size_t i = 0; i < padding.size(); ++i) {
    out.push_back(rows.select(0, static_cast<int64_t>(i)).slice(0, padding[i]));
  }
  return out;
}

std::vector<int64_t> ids_of(const torch::Tensor& tokens) {
  const auto ids = tokens.to(torch::kCPU, at::kLong).contiguous();
  return {ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + ids.numel()};
}

}  // namespace

// recurrentgemma/torch/sampler.py: SamplingState. With echo, the buffers begin with the prompt.
struct Sampler::State {
  torch::Tensor tokens_buffer;                 // [B, total_steps] int32
  std::optional<torch::Tensor> logits_buffer;  // [B, total_steps, V]
  torch::Tensor positions;                     // [B, 1] int32, of the next token
  std::optional<Cache> cache;
  int64_t step = 0;  // Where the last token is.
  int64_t total_steps = 0;
  bool done = false;
};

Sampler::Sampler(Griffin model, const Tokenizer& vocab, bool greedy_sampling, bool is_it_model)
    : model_(std::move(model)),
      vocab_(&vocab),
      greedy_sampling_(greedy_sampling),
      is_it_model_(is_it_model) {}

torch::Tensor Sampler::tokenize(std::string_view input_string) const {
  const auto ids =
      is_it_model_ ? vocab_->encode(as_turn(input_string)) : vocab_->encode(input_string);
  return at::tensor(ids, at::kLong).to(device(), at::kInt);
}

// torch.distributions.Categorical(logits=logits).sample().
torch::Tensor Sampler::sample_from_logits(const torch::Tensor& logits) const {
  if (greedy_sampling_) return at::argmax(logits, /*dim=*/-1);
  const auto normalized = logits - at::logsumexp(logits, /*dim=*/-1, /*keepdim=*/true);
  const auto probs = at::softmax(normalized, /*dim=*/-1);
  return at::multinomial(probs, /*num_samples=*/1, /*replacement=*/true).squeeze(-1);
}

torch::Tensor Sampler::padded(const std::vector<torch::Tensor>& tokens) const {
  int64_t length = 0;
  for (const auto& row : tokens) length = std::max(length, row.size(0));
  std::vector<torch::Tensor> rows;
  for (const auto& row : tokens) {
    const auto pad = at::full({length - row.size(0)}, vocab_->pad_id(), row.options());
    rows.push_back(at::cat({pad, row}));
  }
  return at::stack(rows);
}

Sampler::State Sampler::process_prompt(const torch::Tensor& tokens,
                                       const torch::Tensor& input_lengths,
                                       int64_t total_generation_steps,
                                       const SamplerOptions& options) {
  const auto batch = tokens.size(0), length = tokens.size(1);
  const auto ints = tokens.options();
  // Padding is at -1.
  const auto positions =
      at::clamp(at::arange(length, ints) - length + input_lengths.unsqueeze(1), /*min=*/-1);
  const auto part = [](const torch::Tensor& all, int64_t begin, int64_t end) {
    return all.slice(1, begin, end);
  };

  const bool is_echoed = options.return_logits && options.echo;
  std::optional<torch::Tensor> before, logits;  // Of the prompt, and of its last token.
  State state;
  if (total_generation_steps == 0) {
    before = model_
                 ->forward(tokens, positions, std::nullopt, is_echoed, /*return_cache=*/false,
                           options.on_block)
                 .first;
  } else if (length == 1) {
    // Differs from sampler.py: there a prompt of one token fails unless return_logits.
    std::tie(logits, state.cache) =
        model_->forward(tokens, positions, std::nullopt, true, true, options.on_block);
    before = part(*logits, 0, 0);
  } else {
    std::tie(before, state.cache) =
        model_->forward(part(tokens, 0, length - 1), part(positions, 0, length - 1), std::nullopt,
                        is_echoed, /*return_cache=*/true, options.on_block);
    std::tie(logits, state.cache) =
        model_->forward(part(tokens, length - 1, length), part(positions, length - 1, length),
                        state.cache, /*return_logits=*/true,
                        /*return_cache=*/total_generation_steps > 1, options.on_block);
  }

  state.tokens_buffer = at::full({batch, total_generation_steps}, vocab_->pad_id(), ints);
  if (logits) {
    state.tokens_buffer.select(1, 0).copy_(sample_from_logits(logits->select(1, 0)));
  }
  if (options.return_logits) {
    state.logits_buffer =
        at::zeros({batch, total_generation_steps, vocab_size()}, ints.dtype(dtype()));
    if (logits) state.logits_buffer->select(1, 0).copy_(logits->select(1, 0));
  }
  if (options.echo) {
    state.tokens_buffer = at::cat({tokens, state.tokens_buffer}, /*dim=*/1);
    state.step = length;
    if (options.return_logits) {
      state.logits_buffer =
          logits ? at::cat({*before, *logits, *state.logits_buffer}, /*dim=*/1) : *before;
    }
  }
  state.total_steps = state.tokens_buffer.size(1);
  state.positions = part(positions, length - 1, length) + 1;
  return state;
}

void Sampler::sample_step(State& state, const SamplerOptions& options) {
  auto [logits, cache] =
      model_->forward(state.tokens_buffer.slice(1, state.step, state.step + 1), state.positions,
                      state.cache, /*return_logits=*/true, /*return_cache=*/true, options.on_block);
  state.cache = std::move(cache);
  state.step += 1;
  state.positions = state.positions + 1;
  const auto next = sample_from_logits(logits->select(1, 0));
  state.tokens_buffer.select(1, state.step).copy_(next);
  if (state.logits_buffer) state.logits_buffer->select(1, state.step).copy_(logits->select(1, 0));
  // Of several prompts the reference compares all tokens with one eos, which they never equal.
  const bool is_eos = next.size(0) == 1 && next.item<int64_t>() == vocab_->eos_id();
  state.done |= options.end_sampling_at_eos_token && is_eos;
}

SamplerOutput Sampler::operator()(const std::vector<std::string>& input_strings,
                                  int64_t total_generation_steps,
                                  const SamplerOptions& options) {
  if (total_generation_steps < 0) {
    throw std::invalid_argument(fmt::format(
        "Sampler: total_generation_steps is {}, but must be at least 0", total_generation_steps));
  }
  if (input_strings.empty()) throw std::invalid_argument("Sampler: no input_strings; give one");
  const torch::NoGradGuard no_grad;
  const UseLock::Use use(model_->use_lock());
  std::vector<torch::Tensor> prompts;
  std::vector<int64_t> lengths;
  for (const auto& text : input_strings) {
    prompts.push_back(tokenize(text));
    lengths.push_back(prompts.back().size(0));
  }
  const auto tokens = padded(prompts);
  const auto input_lengths = at::tensor(lengths, at::kLong).to(tokens.options());
  auto state = process_prompt(tokens, input_lengths, total_generation_steps, options);
  while (total_generation_steps > 1 && state.step < state.total_steps - 1 && !state.done) {
    sample_step(state, options);
  }

  for (auto& length : lengths) length = tokens.size(1) - length;  // Now of the padding.
  SamplerOutput output;
  output.tokens = without_padding(state.tokens_buffer, lengths);
  if (options.return_logits) output.logits = without_padding(*state.logits_buffer, lengths);
  for (const auto& row : output.tokens) output.text.push_back(vocab_->decode(ids_of(row)));
  return output;
}

}  // namespace gemma::recurrentgemma
