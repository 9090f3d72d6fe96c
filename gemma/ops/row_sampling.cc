#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

#include <fmt/format.h>

#include <gemma/ops/logits_row.h>
#include <gemma/ops/parallel.h>
#include <gemma/ops/row_sampling.h>

namespace gemma {
namespace {

constexpr auto kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr int64_t kWordBits = 32;

float penalized(float logit, const SeenToken& seen, const SamplingRules& rules) {
  if (rules.repetition_penalty != 1.0) {
    const auto penalty = static_cast<float>(rules.repetition_penalty);
    logit = logit < 0 ? logit * penalty : logit / penalty;
  }
  if (seen.answered == 0) return logit;
  return logit - static_cast<float>(rules.presence_penalty +
                                    rules.frequency_penalty * static_cast<double>(seen.answered));
}

bool has_penalties(const SamplingRules& rules) {
  return rules.repetition_penalty != 1.0 || rules.presence_penalty != 0.0 ||
         rules.frequency_penalty != 0.0;
}

// Applies bias and penalties -> the logits that they changed, as they were.
std::map<int64_t, float> change_logits(LogitsRow& row, const SamplingRow& given) {
  const auto& rules = *given.rules;
  std::map<int64_t, float> originals;
  const auto logit_of = [&](int64_t token) { return row.logits()[static_cast<size_t>(token)]; };
  const auto change = [&](int64_t token, float logit) {
    originals.emplace(token, logit_of(token));
    row.set(token, logit);
  };
  for (const auto& [token, bias] : rules.bias) change(token, logit_of(token) + bias);
  if (has_penalties(rules)) {
    for (const auto& seen : given.seen) {
      change(seen.token, penalized(logit_of(seen.token), seen, rules));
    }
  }
  // Tokens of a block come one after the other.
  int64_t found = -1;
  for (const auto& [token, _] : originals) {
    const auto block = token / LogitsRow::kBlock;
    if (block != found) row.find_peak(block);
    found = block;
  }
  return originals;
}

void forbid(LogitsRow& row, std::span<const uint32_t> mask) {
  constexpr auto kWords = LogitsRow::kBlock / kWordBits;
  const auto size = std::ssize(row.logits());
  for (int64_t block = 0; block < LogitsRow::blocks(size); ++block) {
    const auto begin = block * LogitsRow::kBlock;
    const auto end = std::min(begin + LogitsRow::kBlock, size);
    const auto words = mask.subspan(static_cast<size_t>(block * kWords));
    bool changed = false;
    for (auto token = begin; token < end; ++token) {
      const auto at = token - begin;
      if ((words[static_cast<size_t>(at / kWordBits)] >> (at % kWordBits) & 1U) != 0) continue;
      row.set(token, kMinusInfinity);
      changed = true;
    }
    if (changed) row.find_peak(block);
  }
}

// What is subtracted from logits to make them log-probabilities. The likeliest tokens go to `top`.
double tell_likeliest(const LogitsRow& own, int64_t count, std::vector<TokenLogprob>& top) {
  const auto normalizer = double{own.highest()} + std::log(own.total());
  for (const auto token : own.top(count)) {
    const auto logit = own.logits()[static_cast<size_t>(token)];
    top.push_back({token, static_cast<float>(logit - normalizer)});
  }
  return normalizer;
}

SampledToken score_row(const LogitsRow& own, int64_t token, int64_t top) {
  SampledToken result{.token = token};
  if (!std::isfinite(own.highest())) {
    result.failure = SampledToken::Failure::kNotFinite;
    return result;
  }
  const auto normalizer = tell_likeliest(own, top, result.top);
  result.logprob = static_cast<float>(own.logits()[static_cast<size_t>(token)] - normalizer);
  return result;
}

SampledToken sample_row(std::span<float> logits, std::span<float> peaks, const SamplingRow& given) {
  using Failure = SampledToken::Failure;
  const auto& rules = *given.rules;
  const auto temperature = static_cast<float>(rules.temperature);
  LogitsRow row(logits, peaks, temperature == 0 ? 1.0F : temperature);
  if (!std::isfinite(row.highest())) return {.failure = Failure::kNotFinite};
  SampledToken result;
  auto normalizer = 0.0;
  if (rules.logprobs) {
    normalizer = tell_likeliest(LogitsRow(logits, peaks), *rules.logprobs, result.top);
  }
  const auto originals = change_logits(row, given);
  if (!given.mask.empty()) forbid(row, given.mask);
  const auto highest = row.highest();
  if (highest == kMinusInfinity) return {.failure = Failure::kNothingAllowed};
  if (!std::isfinite(highest)) return {.failure = Failure::kNotFinite};
  if (temperature == 0) {
    result.token = row.argmax();
  } else {
    if (!std::isfinite(highest / temperature)) {
      return {.failure = Failure::kNotFiniteByTemperature};
    }
    const ExponentialDraws draws(std::ssize(logits), given.generator);
    result.token = row.draw({.top_p = static_cast<float>(rules.top_p),
                             .top_k = rules.top_k,
                             .min_p = static_cast<float>(rules.min_p)},
                            draws, 0);
  }
  if (rules.logprobs) {
    const auto original = originals.find(result.token);
    const auto logit = original == originals.end() ? row.logits()[static_cast<size_t>(result.token)]
                                                   : original->second;
    result.logprob = static_cast<float>(logit - normalizer);
  }
  return result;
}

// `choose` makes the result of a row from its place, its logits and their peaks.
template <typename Choose>
std::vector<SampledToken> for_rows(const at::Tensor& logits,
                                   std::optional<double> softcap,
                                   int64_t count,
                                   const Choose& choose) {
  const auto size = logits.size(1);
  const auto blocks = LogitsRow::blocks(size);
  auto* const all = logits.mutable_data_ptr<float>();
  std::vector<float> peaks(static_cast<size_t>(count * blocks));
  LogitsRow::finish(all, count, size, static_cast<float>(softcap.value_or(0.0)), {}, peaks.data());
  std::vector<SampledToken> results(static_cast<size_t>(count));
  const auto one = [&](int64_t i, int64_t /*worker*/) {
    const auto row = static_cast<size_t>(i);
    results[row] = choose(
        row, std::span(all + i * size, static_cast<size_t>(size)),
        std::span(peaks).subspan(row * static_cast<size_t>(blocks), static_cast<size_t>(blocks)));
  };
  // One row has tasks for all threads in itself.
  if (count == 1) {
    one(0, 0);
  } else {
    parallel_for(count, one);
  }
  return results;
}

}  // namespace

void check(const SamplingRules& rules, const char* who, int64_t vocab_size) {
  const auto refuse = [who](const char* name, double value, const char* valid) {
    throw std::invalid_argument(
        fmt::format("{}: {} is {}, but must be {}", who, name, value, valid));
  };
  const auto divisor = static_cast<float>(rules.temperature);
  if (!(divisor >= 0 && std::isfinite(divisor)) || (divisor == 0 && rules.temperature > 0)) {
    refuse("temperature", rules.temperature, "0 (greedy) or a positive float32, 1e-45 to 3.4e38");
  }
  if (!(rules.top_p >= 0)) refuse("top_p", rules.top_p, "a probability, 0 to 1");
  if (rules.top_k < 0) {
    refuse("top_k", static_cast<double>(rules.top_k), "a number of tokens, or 0 for all");
  }
  if (!(rules.min_p >= 0 && rules.min_p <= 1)) refuse("min_p", rules.min_p, "0 to 1");
  if (!(rules.repetition_penalty > 0 && std::isfinite(rules.repetition_penalty))) {
    refuse("repetition_penalty", rules.repetition_penalty, "above 0");
  }
  if (!std::isfinite(rules.presence_penalty)) {
    refuse("presence_penalty", rules.presence_penalty, "a number");
  }
  if (!std::isfinite(rules.frequency_penalty)) {
    refuse("frequency_penalty", rules.frequency_penalty, "a number");
  }
  if (rules.logprobs && (*rules.logprobs < 0 || *rules.logprobs > vocab_size)) {
    refuse("logprobs", static_cast<double>(*rules.logprobs), "0 or more tokens of the vocabulary");
  }
  for (const auto& [token, bias] : rules.bias) {
    if (token < 0 || token >= vocab_size) {
      throw std::invalid_argument(fmt::format("{}: logit_bias has token {}, but tokens are 0 to {}",
                                              who, token, vocab_size - 1));
    }
    if (std::isnan(bias) || bias == std::numeric_limits<float>::infinity()) {
      throw std::invalid_argument(fmt::format(
          "{}: logit_bias of token {} is {}, but must be a number or -infinity", who, token, bias));
    }
  }
}

std::vector<SampledToken> sample_rows(const at::Tensor& logits,
                                      std::optional<double> softcap,
                                      std::span<const SamplingRow> rows) {
  return for_rows(logits, softcap, std::ssize(rows),
                  [&](size_t row, std::span<float> of_row, std::span<float> peaks) {
                    return sample_row(of_row, peaks, rows[row]);
                  });
}

std::vector<SampledToken> score_rows(const at::Tensor& logits,
                                     std::optional<double> softcap,
                                     std::span<const int64_t> tokens,
                                     int64_t top) {
  return for_rows(logits, softcap, std::ssize(tokens),
                  [&](size_t row, std::span<float> of_row, std::span<float> peaks) {
                    return score_row(LogitsRow(of_row, peaks), tokens[row], top);
                  });
}

}  // namespace gemma
