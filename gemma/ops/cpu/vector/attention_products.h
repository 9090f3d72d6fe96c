#pragma once

#include <gemma/ops/cpu/vector/attention_loops.h>
#include <gemma/ops/cpu/vector/gemm_loops.h>

// The products of a block's attention, by vectors.
namespace gemma::cpu {
namespace {

constexpr int64_t kBlockRows = 96;
// Rows that are multiplied together.
constexpr int64_t kBlockMr = kMr;
static_assert(kKeyStep % kNr == 0);

// A block's queries, some keys and values, and what becomes of them.
template <typename T>
class BlockProducts {
 public:
  BlockProducts(const AttentionBlock& block, const CacheHead& cache, float* scratch)
      : cache_(cache),
        width_(round_up(cache.stride, kNr)),
        scores_(scratch),
        sums_(scores_ + kBlockMr * kBlockKeys),
        q_(sums_ + kBlockRows * width_),
        keys_(q_ + kBlockRows * width_),
        values_(keys_ + kBlockKeys * width_),
        weights_(values_ + kBlockKeys * width_) {
    const auto rows = block.tokens * block.heads;
    for (int64_t row0 = 0; row0 < rows; row0 += kBlockMr) {
      const auto queries = [&](int64_t r) {
        return row0 + r < rows ? query_of(block, cache, row0 + r) : nullptr;
      };
      pack_mr(queries, load_up_to(cache.stride), cache.stride, q_ + row0 * cache.stride);
    }
  }

  // Floats that it needs.
  static int64_t scratch(int64_t stride) {
    return 2 * (kBlockRows + kBlockKeys) * round_up(stride, kNr) + 2 * kBlockMr * kBlockKeys;
  }

  // Takes the keys and values of the positions [begin, begin + count), at most kBlockKeys.
  void take(int64_t begin, int64_t count) {
    for (int64_t key = 0; key < count; key += kNr) {
      const auto row = [&](int64_t r) {
        return key + r < count ? row_at<const T>(cache_.k, cache_, begin + key + r) : nullptr;
      };
      pack_nr(row, load_up_to(cache_.stride), cache_.stride, keys_ + key * cache_.stride);
    }
    const auto load_value = load_up_to(cache_.stride);
    for (int64_t key = 0; key < count; ++key) {
      const auto* from = row_at<const T>(cache_.v, cache_, begin + key);
      for (int64_t i = 0; i < width_; i += kLanes) {
        auto* to = values_ + i / kNr * kNr * kBlockKeys + key * kNr;
        store(to + i % kNr, i < cache_.stride ? load_value(from, i) : zeros());
      }
    }
  }

  // Those of the keys that are multiplied where these are seen.
  static Seen around(Seen seen) { return seen; }

  // scores = the group's queries times the keys.
  void score(int64_t row0, Seen seen) {
    for (auto key = seen.begin / kNr * kNr; key < seen.end; key += kNr) {
      multiply_tile(cache_.stride, q_ + row0 * cache_.stride, keys_ + key * cache_.stride,
                    /*add=*/false, scores_ + key, kBlockKeys);
    }
  }

  // The group's sums += the scores of its first `present` rows times the values.
  void add_values(int64_t row0, int64_t present, Seen seen) {
    const auto size = seen.end - seen.begin;
    const auto weights = [&](int64_t r) {
      return r < present ? scores_ + r * kBlockKeys + seen.begin : nullptr;
    };
    pack_mr(weights, load_up_to(size), size, weights_);
    for (int64_t i = 0; i < width_; i += kNr) {
      multiply_tile(size, weights_, values_ + i * kBlockKeys + seen.begin * kNr,
                    /*add=*/true, sums_ + row0 * width_ + i, width_);
    }
  }

  // Of a row of the group, kBlockKeys of them.
  float* scores(int64_t r) const { return scores_ + r * kBlockKeys; }
  // Of a row of the block, `width` of them.
  float* sums(int64_t row) const { return sums_ + row * width_; }
  int64_t width() const { return width_; }

 private:
  const CacheHead& cache_;
  int64_t width_;
  float* scores_;
  float* sums_;
  float* q_;        // Packed.
  float* keys_;     // Panels over the keys.
  float* values_;   // Panels over the head's numbers.
  float* weights_;  // Scores, packed.
};

}  // namespace
}  // namespace gemma::cpu
