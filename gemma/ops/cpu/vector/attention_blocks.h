#pragma once

#include <gemma/ops/cpu/vector/blocked.h>

// Attention of the tokens of a prompt: a block of them and of the heads that share keys.
namespace gemma::cpu {
namespace {

// The scores of a row become their exponentials where the row sees them, else zeros, in all that
// its group sees. -> what has to multiply the values that were summed before.
inline float weigh(float* scores, Seen row, Seen group, float cap, PartialSoftmax& partial) {
  const auto clear = [&](int64_t begin, int64_t end) {
    if (begin < end) std::memset(scores + begin, 0, (end - begin) * sizeof(float));
  };
  if (row.begin >= row.end) {
    clear(group.begin, group.end);
    return 1.0F;
  }
  clear(group.begin, row.begin);
  clear(row.end, group.end);
  const auto size = row.end - row.begin;
  if (cap != 0.0F) softcap(scores + row.begin, size, cap);
  return extend_softmax(scores + row.begin, size, partial);
}

template <typename T>
void attend_block_as(const AttentionBlock& block, const CacheHead& cache, float* scratch) {
  BlockProducts<T> products(block, cache, scratch);
  const auto rows = block.tokens * block.heads;
  PartialSoftmax partial[kBlockRows];
  for (auto& row : partial) row = {kNothingSeen, 0.0F};
  std::memset(products.sums(0), 0, round_up(rows, kBlockMr) * products.width() * sizeof(float));

  // Where what a token sees ends.
  const auto end_of = [&](int64_t position) {
    if (block.run_end == 0) return position + 1;
    const auto end = position + block.ahead;
    return block.ahead == 0 || end > block.run_end ? block.run_end : end;
  };
  const auto last = end_of(block.position + block.tokens - 1);
  const auto oldest = block.position - block.window + 1;
  // Blocks begin and end at the same positions in every block, so the result of a row does not
  // depend on its block.
  const auto first = block.window > 0 && oldest > 0 ? oldest / kKeyStep * kKeyStep : 0;
  for (auto begin = first, next = first; begin < last; begin = next) {
    next = (begin / kBlockKeys + 1) * kBlockKeys;
    const auto count = (next < last ? next : last) - begin;
    products.take(begin, count);
    // Of these keys, what the token of a row sees.
    const auto seen_by = [&](int64_t row) -> Seen {
      const auto position = block.position + row / block.heads;
      const auto start = block.window > 0 ? position + 1 - block.window - begin : 0;
      const auto end = end_of(position) - begin;
      return {start > 0 ? start : 0, end < count ? end : count};
    };
    for (int64_t row0 = 0; row0 < rows; row0 += kBlockMr) {
      const auto present = rows - row0 < kBlockMr ? rows - row0 : kBlockMr;
      // Later tokens see later keys.
      const Seen seen{seen_by(row0).begin, seen_by(row0 + present - 1).end};
      if (seen.begin >= seen.end) continue;
      const auto around = products.around(seen);
      products.score(row0, around);
      for (int64_t r = 0; r < present; ++r) {
        const auto factor =
            weigh(products.scores(r), seen_by(row0 + r), around, block.softcap, partial[row0 + r]);
        if (factor == 1.0F) continue;
        auto* const sums = products.sums(row0 + r);
        for (int64_t i = 0; i < products.width(); i += kLanes) {
          store(sums + i, load(sums + i) * factor);
        }
      }
      products.add_values(row0, present, around);
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    auto* out = block.out + row / block.heads * block.ld_out + row % block.heads * cache.dim;
    const auto* const sums = products.sums(row);
    const auto scale = 1.0F / partial[row].sum;
    for (int64_t i = 0; i < cache.dim; ++i) out[i] = sums[i] * scale;
  }
}

int64_t attend_scratch(const CacheHead& cache) {
  return cache.type == CacheType::kFloat32 ? BlockProducts<float>::scratch(cache.stride)
                                           : BlockProducts<BFloat16>::scratch(cache.stride);
}

void attend_block(const AttentionBlock& block, const CacheHead& cache, float* scratch) {
  switch (cache.type) {
    case CacheType::kFloat32:
      return attend_block_as<float>(block, cache, scratch);
    case CacheType::kBFloat16:
      return attend_block_as<BFloat16>(block, cache, scratch);
  }
}

}  // namespace
}  // namespace gemma::cpu
