#include <algorithm>
#include <stdexcept>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/engine/model_runner.h>
#include <gemma/generate/log_probs.h>
#include <gemma/models/language_model.h>
#include <gemma/modules/masks.h>
#include <gemma/ops/ops.h>

namespace gemma {
namespace {

void check(const LogProbsOptions& options, int64_t max_position_embeddings) {
  if (options.window < 2 || options.window > max_position_embeddings) {
    throw std::invalid_argument(
        fmt::format("log_probs: window is {}, but must be 2 to max_position_embeddings, {}",
                    options.window, max_position_embeddings));
  }
  if (options.chunk < 1) {
    throw std::invalid_argument(
        fmt::format("log_probs: chunk is {}, but must be 1 or more positions", options.chunk));
  }
}

// [T] tokens -> [T, E].
at::Tensor exact_hidden_states(LanguageModelImpl& model, const std::vector<int64_t>& tokens) {
  const auto device = model.embedder->weight.device();
  const auto length = std::ssize(tokens);
  const auto positions = at::arange(length, at::TensorOptions().dtype(at::kLong).device(device));
  const auto window = model.config().sliding_window_size;
  return model
      .hidden_states(
          model.embed(at::tensor(tokens, at::kLong).unsqueeze(0).to(device)), positions,
          model.make_kv_caches(1, length, device), causal_mask(positions, length),
          window ? std::optional(sliding_window_mask(positions, length, *window)) : std::nullopt)
      .squeeze(0);
}

at::Tensor engine_hidden_states(EngineModel model,
                                const std::vector<int64_t>& tokens,
                                torch::Dtype kv_dtype) {
  ModelRunner runner(std::move(model), {.kv_dtype = kv_dtype, .positions = std::ssize(tokens)});
  auto sequence = runner.make_sequence();
  return runner.extend(sequence, tokens);
}

at::Tensor logits_of(const EngineModelImpl& model, const at::Tensor& hidden) {
  const auto logits = model.logits(hidden, /*buffer=*/{});
  const auto cap = model.logits_softcap();
  return cap ? softcap(logits, *cap) : logits;
}

}  // namespace

void log_probs(EngineModel model,
               int64_t bos_id,
               std::span<const int64_t> tokens,
               const LogProbsOptions& options,
               const LogProbsCallback& use) {
  const torch::NoGradGuard no_grad;
  const UseLock::Use computing(model->use_lock());
  check(options, model->max_positions());
  // With exact numerics as the reference, where it has such a model.
  auto* const exact = model->numerics() == Numerics::kExact
                          ? dynamic_cast<LanguageModelImpl*>(model.ptr().get())
                          : nullptr;
  while (!tokens.empty()) {
    // Nothing is asked of what follows the last token.
    auto left = tokens.first(std::min(tokens.size(), static_cast<size_t>(options.window - 1)));
    tokens = tokens.subspan(left.size());
    std::vector<int64_t> seen{bos_id};
    seen.insert(seen.end(), left.begin(), left.end() - 1);
    auto hidden = exact != nullptr ? exact_hidden_states(*exact, seen)
                                   : engine_hidden_states(model, seen, options.kv_dtype);
    for (const auto& part : hidden.split(options.chunk)) {
      const auto count = static_cast<size_t>(part.size(0));
      use(left.first(count), logits_of(*model, part).to(at::kFloat).log_softmax(-1));
      left = left.subspan(count);
    }
  }
}

}  // namespace gemma
