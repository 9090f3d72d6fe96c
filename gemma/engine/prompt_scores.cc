#include <algorithm>
#include <limits>
#include <utility>

#include <ATen/ATen.h>

#include <gemma/engine/prompt_scores.h>
#include <gemma/ops/row_sampling.h>

namespace gemma {
namespace {

// The logits of so many places are in memory at once.
constexpr int64_t kRowsOfLogits = 32;

}  // namespace

void PromptScores::add_token(int64_t token, float logprob, std::vector<TokenLogprob> top) {
  tokens_.push_back(
      {.id = token, .text = decoder_.add(token), .logprob = logprob, .top = std::move(top)});
}

// A row is of a token, and says what follows it.
bool PromptScores::add(const Text& text,
                       const at::Tensor& hidden,
                       const LogitsOf& logits_of,
                       std::optional<double> softcap) {
  const std::span tokens = text.tokens();
  if (tokens_.empty()) add_token(tokens.front(), std::numeric_limits<float>::quiet_NaN(), {});
  const auto first = text.done() - hidden.size(0);
  const auto end = std::min(text.done(), text.prompt_size() - 1);
  for (auto row = std::max(first, std::ssize(tokens_) - 1); row < end;) {
    const auto count = std::min(kRowsOfLogits, end - row);
    const auto followers = tokens.subspan(static_cast<size_t>(row) + 1, static_cast<size_t>(count));
    const auto logits = logits_of(hidden.narrow(0, row - first, count));
    for (auto& scored : score_rows(logits, softcap, followers, top_)) {
      if (scored.failure != SampledToken::Failure::kNone) return false;
      add_token(scored.token, scored.logprob, std::move(scored.top));
    }
    row += count;
  }
  return true;
}

}  // namespace gemma
