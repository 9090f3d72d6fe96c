#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/record_function.h>

#include <gemma/ops/cpu/cpu_ops.h>
#include <gemma/ops/cpu/cpu_tensors.h>
#include <gemma/ops/exponential_draws.h>
#include <gemma/ops/parallel.h>

namespace gemma {
namespace {

// Logits of a block, whose largest is kept: finding the top k then need not read all logits again.
constexpr int64_t kBlock = 256;
constexpr int64_t kBlocksPerTask = 64;

// One row of logits, finished, with the largest of each block.
struct Row {
  std::span<const float> logits;
  std::span<const float> peaks;

  float highest() const { return *std::max_element(peaks.begin(), peaks.end()); }
};

int64_t argmax(const Row& row) {
  const auto block = cpu::kernels().argmax(row.peaks.data(), std::ssize(row.peaks)) * kBlock;
  const auto size = std::min(kBlock, std::ssize(row.logits) - block);
  return block + cpu::kernels().argmax(row.logits.data() + block, size);
}

// Indices of the `count` largest logits, largest first, lower indices first among equals.
std::vector<int64_t> top(const Row& row, int64_t count) {
  // At least `count` logits are as large as the count-th largest peak.
  auto threshold = -std::numeric_limits<float>::infinity();
  if (count <= std::ssize(row.peaks)) {
    std::vector<float> peaks(row.peaks.begin(), row.peaks.end());
    std::nth_element(peaks.begin(), peaks.begin() + count - 1, peaks.end(), std::greater<>());
    threshold = peaks[count - 1];
  }
  std::vector<int64_t> candidates;
  for (int64_t block = 0; block < std::ssize(row.peaks); ++block) {
    if (!(row.peaks[block] >= threshold)) continue;
    const auto end = std::min((block + 1) * kBlock, std::ssize(row.logits));
    for (auto i = block * kBlock; i < end; ++i) {
      if (row.logits[i] >= threshold) candidates.push_back(i);
    }
  }
  const auto kept = std::min(count, std::ssize(candidates));
  std::partial_sort(candidates.begin(), candidates.begin() + kept, candidates.end(),
                    [&](int64_t a, int64_t b) {
                      return row.logits[a] != row.logits[b] ? row.logits[a] > row.logits[b] : a < b;
                    });
  candidates.resize(kept);
  return candidates;
}

// Sum of e^(logit - highest), the same for any number of threads.
double total_weight(const Row& row, float highest) {
  constexpr int64_t kPart = kBlock * kBlocksPerTask;
  const auto size = std::ssize(row.logits);
  std::vector<double> parts(cpu::round_up(size, kPart) / kPart);
  parallel_for(std::ssize(parts), [&](int64_t part, int64_t /*worker*/) {
    const auto begin = part * kPart;
    parts[part] =
        cpu::kernels().sum_exp(row.logits.data() + begin, std::min(kPart, size - begin), highest);
  });
  double total = 0.0;
  for (const auto part : parts) total += part;
  return total;
}

// What at::multinomial does with the filtered probabilities: each divided by an exponential draw,
// the largest wins.
int64_t draw(
    const Row& row, float top_p, int64_t top_k, const ExponentialDraws& draws, int64_t first_draw) {
  const auto highest = row.highest();
  const auto total = total_weight(row, highest);
  const auto candidates = top(row, std::max<int64_t>(1, top_k));
  TORCH_CHECK(!candidates.empty(), "sample: the logits hold NaN; were the weights loaded?");

  // The sums are rounded as at::cumsum rounds them.
  std::vector<float> probs;
  double before = 0.0;
  for (const auto i : candidates) {
    const auto prob = static_cast<float>(std::exp(double{row.logits[i]} - highest) / total);
    const auto until = before + prob;
    if (!probs.empty() && static_cast<float>(until) - prob > top_p) break;
    probs.push_back(prob);
    before = until;
  }
  auto winner = candidates[0];
  auto best = -1.0F;
  for (size_t j = 0; j < probs.size(); ++j) {
    const auto i = candidates[j];
    const auto score = probs[j] / static_cast<float>(before) / draws.at(first_draw + i);
    if (score > best || (score == best && i < winner)) {
      best = score;
      winner = i;
    }
  }
  return winner;
}

}  // namespace

std::pair<at::Tensor, at::Tensor> CpuOps::sample(const at::Tensor& hidden,
                                                 const WeightView& embedding,
                                                 const std::optional<at::Tensor>& bias,
                                                 std::optional<double> softcap,
                                                 const SamplingParams& params) const {
  RECORD_FUNCTION("gemma::sample", std::vector<c10::IValue>());
  const auto from = as_rows(hidden);
  const CpuWeight w(embedding);
  const auto rows = from.size(0);
  const auto size = w->rows;
  auto logits = at::empty({rows, size}, at::kFloat);
  auto* const all = logits.mutable_data_ptr<float>();
  multiply(from.const_data_ptr<float>(), rows, *w, Pass::kAny, all);
  if (bias) logits.add_(*bias);

  const auto temperatures = params.temperatures ? as_rows(*params.temperatures) : at::Tensor();
  const auto blocks = cpu::round_up(size, kBlock) / kBlock;
  const auto tasks = cpu::round_up(blocks, kBlocksPerTask) / kBlocksPerTask;
  std::vector<float> peaks(rows * blocks);
  parallel_for(rows * tasks, [&](int64_t task, int64_t /*worker*/) {
    const auto row = task / tasks;
    const auto first = task % tasks * kBlocksPerTask;
    const auto temperature =
        temperatures.defined() ? temperatures.const_data_ptr<float>()[row] : 1.0F;
    for (auto block = first; block < std::min(first + kBlocksPerTask, blocks); ++block) {
      const auto begin = block * kBlock;
      peaks[row * blocks + block] =
          cpu::kernels().finish_logits(all + row * size + begin, std::min(kBlock, size - begin),
                                       static_cast<float>(softcap.value_or(0.0)), temperature);
    }
  });

  auto tokens = at::empty({rows}, at::kLong);
  auto* const chosen = tokens.mutable_data_ptr<int64_t>();
  const auto row_at = [&](int64_t i) {
    return Row{{all + i * size, static_cast<size_t>(size)},
               {peaks.data() + i * blocks, static_cast<size_t>(blocks)}};
  };
  if (!params.temperatures) {
    for (int64_t i = 0; i < rows; ++i) chosen[i] = argmax(row_at(i));
    return {tokens.squeeze(-1), logits};
  }
  const auto top_ps = as_rows(params.top_ps);
  const auto top_ks = params.top_ks.to(at::kLong).contiguous();
  const ExponentialDraws draws(rows * size);
  for (int64_t i = 0; i < rows; ++i) {
    chosen[i] = draw(row_at(i), top_ps.const_data_ptr<float>()[i],
                     top_ks.const_data_ptr<int64_t>()[i], draws, i * size);
  }
  return {tokens, logits};
}

}  // namespace gemma
