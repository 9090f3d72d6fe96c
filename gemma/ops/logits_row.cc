#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include <gemma/ops/cpu/kernels.h>
#include <gemma/ops/logits_row.h>
#include <gemma/ops/parallel.h>

namespace gemma {
namespace {

constexpr int64_t kBlocksPerTask = 64;
constexpr int64_t kTokensPerTask = LogitsRow::kBlock * kBlocksPerTask;

// The candidate of a draw with the highest score, of equal ones the first token.
struct Winner {
  float score = -1.0F;
  int64_t token = 0;
  bool operator<(const Winner& other) const {
    return score != other.score ? score < other.score : token > other.token;
  }
};

}  // namespace

void LogitsRow::finish(float* logits,
                       int64_t rows,
                       int64_t size,
                       float softcap,
                       std::span<const float> temperatures,
                       float* peaks) {
  const auto of_row = blocks(size);
  const auto tasks = (of_row + kBlocksPerTask - 1) / kBlocksPerTask;
  parallel_for(rows * tasks, [&](int64_t task, int64_t /*worker*/) {
    const auto row = task / tasks;
    const auto first = task % tasks * kBlocksPerTask;
    for (auto block = first; block < std::min(first + kBlocksPerTask, of_row); ++block) {
      const auto begin = block * kBlock;
      peaks[row * of_row + block] =
          cpu::kernels().finish_logits(logits + row * size + begin, std::min(kBlock, size - begin),
                                       softcap, temperatures.empty() ? 1.0F : temperatures[row]);
    }
  });
}

void LogitsRow::find_peak(int64_t block) {
  const auto begin = static_cast<size_t>(block * kBlock);
  const auto part = logits_.subspan(begin, std::min<size_t>(kBlock, logits_.size() - begin));
  peaks_[static_cast<size_t>(block)] = *std::ranges::max_element(part);
}

float LogitsRow::highest() const {
  auto highest = -std::numeric_limits<float>::infinity();
  for (const auto peak : peaks_) {
    if (std::isnan(peak)) return peak;
    highest = std::max(highest, peak);
  }
  return highest;
}

int64_t LogitsRow::argmax() const {
  const auto block = cpu::kernels().argmax(peaks_.data(), std::ssize(peaks_)) * kBlock;
  const auto size = std::min(kBlock, std::ssize(logits_) - block);
  return block + cpu::kernels().argmax(logits_.data() + block, size);
}

std::vector<int64_t> LogitsRow::top(int64_t count) const {
  if (count < 1) return {};
  // At least `count` logits are as large as the count-th largest peak.
  auto threshold = -std::numeric_limits<float>::infinity();
  if (count <= std::ssize(peaks_)) {
    std::vector<float> peaks(peaks_.begin(), peaks_.end());
    std::nth_element(peaks.begin(), peaks.begin() + count - 1, peaks.end(), std::greater<>());
    threshold = peaks[static_cast<size_t>(count - 1)];
  }
  std::vector<int64_t> candidates;
  for (int64_t block = 0; block < std::ssize(peaks_); ++block) {
    if (!(peaks_[static_cast<size_t>(block)] >= threshold)) continue;
    const auto end = std::min((block + 1) * kBlock, std::ssize(logits_));
    for (auto i = block * kBlock; i < end; ++i) {
      if (logits_[static_cast<size_t>(i)] >= threshold) candidates.push_back(i);
    }
  }
  const auto kept = std::min(count, std::ssize(candidates));
  std::partial_sort(
      candidates.begin(), candidates.begin() + kept, candidates.end(),
      [&](int64_t a, int64_t b) { return scaled(a) != scaled(b) ? scaled(a) > scaled(b) : a < b; });
  candidates.resize(static_cast<size_t>(kept));
  return candidates;
}

double LogitsRow::total() const {
  const auto size = std::ssize(logits_);
  const auto peak = highest() / temperature_;
  std::vector<double> parts(static_cast<size_t>((size + kTokensPerTask - 1) / kTokensPerTask));
  parallel_for(std::ssize(parts), [&](int64_t part, int64_t /*worker*/) {
    const auto begin = part * kTokensPerTask;
    parts[static_cast<size_t>(part)] = cpu::kernels().sum_exp(
        logits_.data() + begin, std::min(kTokensPerTask, size - begin), temperature_, peak);
  });
  double total = 0.0;
  for (const auto part : parts) total += part;
  return total;
}

LogitsRow::Candidates LogitsRow::likeliest(const Cut& cut) const {
  constexpr int64_t kFirst = 256;
  const auto size = std::ssize(logits_);
  const auto most = cut.top_k > 0 ? std::min(cut.top_k, size) : size;
  const auto peak = highest() / temperature_;
  const auto total = this->total();
  // The sums are rounded as at::cumsum rounds them.
  Candidates result;
  auto& [tokens, probs, sum] = result;
  bool is_cut = false;
  // Without a top_k more and more of the largest, until the rest is cut off.
  for (auto count = cut.top_k > 0 ? most : std::min(kFirst, most); !is_cut; count *= 8) {
    tokens = top(std::min(count, most));
    for (auto j = probs.size(); j < tokens.size(); ++j) {
      const auto prob = static_cast<float>(std::exp(double{scaled(tokens[j])} - peak) / total);
      const auto until = sum + prob;
      if (!probs.empty() &&
          (static_cast<float>(until) - prob > cut.top_p || prob < cut.min_p * probs.front())) {
        is_cut = true;
        break;
      }
      probs.push_back(prob);
      sum = until;
    }
    if (count >= most) break;
  }
  return result;
}

LogitsRow::Candidates LogitsRow::all() const {
  const auto size = std::ssize(logits_);
  const auto peak = highest() / temperature_;
  const auto total = this->total();
  Candidates result{.tokens = std::vector<int64_t>(logits_.size()),
                    .probs = std::vector<float>(logits_.size())};
  std::iota(result.tokens.begin(), result.tokens.end(), 0);
  parallel_for((size + kTokensPerTask - 1) / kTokensPerTask, [&](int64_t part, int64_t /*worker*/) {
    for (auto token = part * kTokensPerTask; token < std::min((part + 1) * kTokensPerTask, size);
         ++token) {
      const auto exponent = double{scaled(token)} - peak;
      result.probs[static_cast<size_t>(token)] = static_cast<float>(std::exp(exponent) / total);
    }
  });
  for (const auto prob : result.probs) result.sum += prob;
  return result;
}

int64_t LogitsRow::draw(const Cut& cut, const ExponentialDraws& draws, int64_t first_draw) const {
  // A top_p of 1 cuts nothing, though rounded probabilities may sum to more.
  const bool is_whole =
      (cut.top_k <= 0 || cut.top_k >= std::ssize(logits_)) && cut.top_p >= 1 && cut.min_p <= 0;
  const auto candidates = is_whole ? all() : likeliest(cut);
  const auto& [tokens, probs, sum] = candidates;
  const auto size = std::ssize(probs);
  std::vector<Winner> winners(static_cast<size_t>((size + kTokensPerTask - 1) / kTokensPerTask),
                              Winner{.token = tokens[0]});
  const auto whole = static_cast<float>(sum);
  parallel_for(std::ssize(winners), [&](int64_t part, int64_t /*worker*/) {
    auto& winner = winners[static_cast<size_t>(part)];
    for (auto j = part * kTokensPerTask; j < std::min((part + 1) * kTokensPerTask, size); ++j) {
      const auto token = tokens[static_cast<size_t>(j)];
      const auto score = probs[static_cast<size_t>(j)] / whole / draws.at(first_draw + token);
      winner = std::max(winner, Winner{score, token});
    }
  });
  return std::ranges::max(winners, std::less<>()).token;
}

}  // namespace gemma
