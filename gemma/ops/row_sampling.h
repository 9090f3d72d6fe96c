#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

// Sampling in which each row of a batch has rules of its own.
namespace gemma {

/// How the tokens of a text are chosen. In this order: bias, penalties, the mask, temperature,
/// top-p, top-k, min-p.
struct SamplingRules {
  /// Divides the logits; 0: always the likeliest token.
  double temperature = 1.0;
  /// The likeliest tokens before one sum to no more than this.
  double top_p = 1.0;
  /// So many of the likeliest; 0: all.
  int64_t top_k = 0;
  /// Those that are at least so many times as likely as the likeliest.
  double min_p = 0.0;
  /// Divides logits above 0, and multiplies those below, of tokens of the prompt and the answer.
  double repetition_penalty = 1.0;
  /// Subtracted from the logits of tokens that are in the answer.
  double presence_penalty = 0.0;
  /// The same for each time that a token is in it.
  double frequency_penalty = 0.0;
  /// Added to the logits of tokens; -infinity forbids one.
  std::vector<std::pair<int64_t, float>> bias = {};
  /// How many of the likeliest tokens are told with the chosen one, by the model's own
  /// distribution, before all of the above; none: no probabilities at all.
  std::optional<int64_t> logprobs = std::nullopt;
};

/// Throws std::invalid_argument, one line that begins with `who` and names the value.
void check(const SamplingRules& rules, const char* who, int64_t vocab_size);

/// A token of a text so far.
struct SeenToken {
  int64_t token;
  int64_t answered = 0;  ///< How often it is in the answer; 0: in the prompt only.
};

/// What one row is sampled by.
struct SamplingRow {
  const SamplingRules* rules;
  std::span<const SeenToken> seen = {};  ///< Each token once; only for penalties.
  /// A bit for each token of the vocabulary, 1: allowed; empty: all are.
  std::span<const uint32_t> mask = {};
  at::Generator generator = {};  ///< For a temperature above 0. Draws as for a batch of one.
};

struct TokenLogprob {
  int64_t token;
  float logprob;
};

/// The result of a row.
struct SampledToken {
  /// Why there is no token: the logits are NaN or infinite, or become so when they are divided by
  /// the temperature, or no token is allowed.
  enum class Failure { kNone, kNotFinite, kNotFiniteByTemperature, kNothingAllowed };

  int64_t token = -1;
  Failure failure = Failure::kNone;
  /// With rules.logprobs.
  float logprob = std::numeric_limits<float>::quiet_NaN();
  std::vector<TokenLogprob> top = {};  ///< The likeliest first.
};

/// Samples rows of logits [B, V], float32 on the CPU, which are changed. The result of a row does
/// not depend on the others, nor on the number of threads.
std::vector<SampledToken> sample_rows(const at::Tensor& logits,
                                      std::optional<double> softcap,
                                      std::span<const SamplingRow> rows);

/// What a model expects of given tokens: the logprob of tokens[i] by the logits [B, V] of row i,
/// with so many of the likeliest. As `sample_rows` has it of the tokens that it chooses.
std::vector<SampledToken> score_rows(const at::Tensor& logits,
                                     std::optional<double> softcap,
                                     std::span<const int64_t> tokens,
                                     int64_t top);

}  // namespace gemma
