#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include <gemma/models/engine_model.h>

namespace gemma {

struct LogProbsOptions {
  /// Most tokens that the model sees together, bos included; 2 or more.
  int64_t window = 512;
  /// Of keys and values in fast numerics; exact ones follow config.dtype.
  torch::Dtype kv_dtype = torch::kFloat32;
  /// Most positions whose log-probabilities are in memory together.
  int64_t chunk = 32;
};

/// Consecutive tokens of a text, and what the model had expected: log_probs[i] float32 [V] is over
/// the vocabulary at the place of tokens[i], after those before it in its window.
using LogProbsCallback =
    std::function<void(std::span<const int64_t> tokens, const torch::Tensor& log_probs)>;

/// Calls `use` with all of `tokens`, in order, some at a time. They are cut into windows that start
/// with `bos_id`, as a Gemma without one is not itself. Throws std::invalid_argument for a window
/// that the model cannot see, or a chunk below 1.
void log_probs(EngineModel model,
               int64_t bos_id,
               std::span<const int64_t> tokens,
               const LogProbsOptions& options,
               const LogProbsCallback& use);

}  // namespace gemma
