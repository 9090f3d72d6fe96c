#include <ATen/ATen.h>

#include <gemma/generate/loops.h>
#include <gemma/generate/next_tokens.h>

namespace gemma {
namespace {

// Rows padded to `length`, [rows, length].
at::Tensor padded(const TokenRows& rows, int64_t length, int64_t pad_id) {
  auto ids = at::full({std::ssize(rows), length}, pad_id, at::kLong);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto row = ids[static_cast<int64_t>(i)];
    row.narrow(0, 0, std::ssize(rows[i])).copy_(at::tensor(rows[i], at::kLong));
  }
  return ids;
}

// The tokens [B] at `index`.
void take(const at::Tensor& tokens, int64_t index, Continuations& continuations) {
  const auto column = tokens.cpu().contiguous();
  for (int64_t row = 0; row < continuations.size(); ++row) {
    if (continuations.wants(row, index)) {
      continuations.add(row, column.const_data_ptr<int64_t>()[row]);
    }
  }
}

}  // namespace

void generate_exact(LanguageModelImpl& model,
                    torch::Device device,
                    const GenerateRequest& request,
                    const ModelInputs& inputs,
                    const GenerateOptions& options,
                    Continuations& continuations) {
  const auto min_prompt_len = request.min_prompt_len();
  const auto max_seq_len = request.max_seq_len();
  const auto pad_id = model.tokenizer().pad_id();
  // To look at tokens is to wait for the GPU: only if somebody asks in between.
  const bool watched = options.on_token || !options.stop_ids.empty();

  auto kv_caches = model.make_kv_caches(std::ssize(request.prompts), max_seq_len, device);
  const auto token_ids = padded(request.prompts, max_seq_len, pad_id).to(device);
  const auto prompt_mask = token_ids != pad_id;
  const auto longs = token_ids.options();
  NextTokens next_tokens(model, request);

  auto input_ids = token_ids.narrow(1, 0, min_prompt_len).contiguous();
  auto positions = at::arange(min_prompt_len, longs);
  auto output_positions = at::full({1}, min_prompt_len - 1, longs);

  // One pass over the tokens that all prompts have, then a token a step. Longer prompts are fed on
  // through these steps, and what was drawn for them is dropped, but the draw is made: the random
  // numbers that later steps see depend on it.
  for (int64_t index = min_prompt_len; index < max_seq_len; ++index) {
    const auto [mask, local_mask] = inputs.masks(positions);
    const auto hidden = model.hidden_states(inputs.embed(input_ids), positions, kv_caches, mask,
                                            local_mask, options.on_layer);
    const auto next_token_ids = next_tokens.sample(hidden, output_positions);

    const auto slot = token_ids.select(1, index);  // [B]
    slot.copy_(at::where(prompt_mask.select(1, index), slot, next_token_ids));
    input_ids = slot.unsqueeze(1);
    positions = at::full({1}, index, longs);
    output_positions = at::zeros({1}, longs);

    if (watched) take(slot, index, continuations);
    if (options.on_step) options.on_step(index - min_prompt_len);
    if (!options.stop_ids.empty() && continuations.all_ended()) break;
  }
  next_tokens.check();
  if (watched) return;
  const auto tokens = token_ids.cpu();
  for (int64_t index = min_prompt_len; index < max_seq_len; ++index) {
    take(tokens.select(1, index), index, continuations);
  }
}

}  // namespace gemma
