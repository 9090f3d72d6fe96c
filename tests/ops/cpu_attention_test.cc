#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/ops/cpu/cpu_ops.h>
#include <gemma/ops/rotary.h>

namespace gemma {
namespace {

using testing::near_to;
using testing::random_tensor;

const CpuOps kFast;
const Ops kExact;

struct AttentionCase {
  int64_t heads, kv_heads, dim;
  std::optional<int64_t> window;
  std::optional<double> softcap;
  bool norms;
};

const std::vector<AttentionCase> kAttentionCases{{4, 1, 24, std::nullopt, std::nullopt, true},
                                                 {2, 2, 12, 5, std::nullopt, false},
                                                 {6, 2, 64, std::nullopt, 5.0, false},
                                                 {8, 1, 256, 40, 3.0, true},
                                                 {3, 3, 2, 1, std::nullopt, true},
                                                 {100, 1, 8, std::nullopt, std::nullopt, false}};

// The blocks of some sequences of at most so many positions, in no order.
class Caches {
 public:
  Caches(const AttentionCase& row,
         int64_t sequences,
         int64_t positions,
         at::ScalarType dtype = at::kFloat)
      : blocks_((positions + BlockCache::kPositions - 1) / BlockCache::kPositions) {
    const auto width =
        (row.dim + BlockCache::kPadding - 1) / BlockCache::kPadding * BlockCache::kPadding;
    // What is not written must not be read.
    const auto empty = [&] {
      return at::full({sequences * blocks_, row.kv_heads, BlockCache::kPositions, width},
                      std::numeric_limits<float>::quiet_NaN(), dtype);
    };
    cache_ = {empty(), empty()};
    ids_.resize(static_cast<size_t>(sequences * blocks_));
    std::iota(ids_.rbegin(), ids_.rend(), 0);
  }

  const BlockCache& cache() const { return cache_; }

  // Without the blocks before position `from`.
  BlockTable table(int64_t sequence, int64_t from = 0) const {
    const auto first = from / BlockCache::kPositions;
    return {std::span(ids_).subspan(sequence * blocks_ + first, blocks_ - first), first};
  }

 private:
  int64_t blocks_;
  BlockCache cache_;
  std::vector<int32_t> ids_;
};

at::Tensor attend(const Ops& ops,
                  const AttentionCase& row,
                  Pass pass,
                  const at::Tensor& qkv,
                  const std::vector<Segment>& segments,
                  const Caches& caches) {
  const HeadNorms norms =
      row.norms ? HeadNorms{NormWeight{random_tensor({row.dim}, 11, qkv.scalar_type()), 1e-6, true},
                            NormWeight{random_tensor({row.dim}, 12, qkv.scalar_type()), 1e-6, true}}
                : HeadNorms{};
  const auto table = precompute_freqs_cis(row.dim, 1000, 1e4);
  std::vector<at::Tensor> freqs;
  std::vector<BlockTable> tables;
  for (const auto& segment : segments) {
    const auto oldest = row.window ? segment.position - *row.window + 1 : 0;
    tables.push_back(caches.table(std::ssize(tables), std::max<int64_t>(0, oldest)));
    freqs.push_back(table.narrow(0, segment.position, segment.tokens));
  }
  return ops.attend_segments(qkv, {row.heads, row.kv_heads, row.dim}, norms, {0.3, row.softcap},
                             row.window, at::cat(freqs), pass, segments, caches.cache(), tables);
}

// All of one sequence, by pieces; pieces of one token as a text is continued.
at::Tensor in_pieces(const Ops& ops,
                     const AttentionCase& row,
                     const at::Tensor& qkv,
                     int64_t piece,
                     const Caches& caches) {
  std::vector<at::Tensor> parts;
  for (int64_t at = 0; at < qkv.size(0); at += piece) {
    const auto count = std::min(piece, qkv.size(0) - at);
    parts.push_back(attend(ops, row, piece == 1 ? Pass::kDecode : Pass::kPrompt,
                           qkv.narrow(0, at, count), {{0, count, at}}, caches));
  }
  return at::cat(parts);
}

at::Tensor random_qkv(const AttentionCase& row, int64_t tokens) {
  return random_tensor({tokens, (row.heads + 2 * row.kv_heads) * row.dim}, /*seed=*/1);
}

std::string name_of(const AttentionCase& row) {
  return fmt::format("{} heads of {}", row.heads, row.dim);
}

at::Tensor at_once(const Ops& ops, const AttentionCase& row, const at::Tensor& qkv) {
  return in_pieces(ops, row, qkv, qkv.size(0), Caches(row, 1, qkv.size(0)));
}

TEST(CpuAttention, AgreesWithTheReference) {
  for (const auto& row : kAttentionCases) {
    const auto qkv = random_qkv(row, 150);
    EXPECT_TRUE(near_to(at_once(kFast, row, qkv), at_once(Ops(), row, qkv).to(at::kDouble), 1e-5))
        << name_of(row);
  }
}

// A prefix that is longer than windows: as if there were none, in a run that all of it sees.
TEST(CpuAttention, ARunThatIgnoresTheWindowSeesAllOfItself) {
  for (auto row : kAttentionCases) {
    const auto qkv = random_qkv(row, 150);
    const auto run = [&](const Ops& ops, WindowSide side) {
      const Segment segment{.first_token = 0,
                            .tokens = 150,
                            .position = 0,
                            .bidirectional = true,
                            .window_side = side};
      return attend(ops, row, Pass::kPrompt, qkv, {segment}, Caches(row, 1, 150));
    };
    const auto got = run(kFast, WindowSide::kNone);
    EXPECT_TRUE(near_to(got, run(Ops(), WindowSide::kNone).to(at::kDouble), 1e-5)) << name_of(row);
    EXPECT_EQ(at::equal(got, run(kFast, WindowSide::kBefore)), !row.window.has_value())
        << name_of(row);
    row.window = std::nullopt;
    EXPECT_TRUE(at::equal(got, run(kFast, WindowSide::kBefore))) << name_of(row);
  }
}

TEST(CpuAttention, OfSingleTokensAgreesWithTheReference) {
  for (const auto& row : kAttentionCases) {
    const auto qkv = random_qkv(row, 150);
    const auto want = at_once(Ops(), row, qkv).to(at::kDouble);
    EXPECT_TRUE(near_to(in_pieces(kFast, row, qkv, 1, Caches(row, 1, 150)), want, 1e-5))
        << name_of(row);
    EXPECT_TRUE(near_to(in_pieces(Ops(), row, qkv, 1, Caches(row, 1, 150)), want, 1e-5))
        << name_of(row) << ", Ops";
  }
}

TEST(CpuAttention, OfAPromptHasTheSameBitsInPiecesOfAnySize) {
  for (const auto& row : kAttentionCases) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const auto qkv = random_qkv(row, 150);
      const auto want = in_pieces(kFast, row, qkv, 150, Caches(row, 1, 150, dtype));
      for (const int64_t piece : {7, 64, 149}) {
        EXPECT_TRUE(at::equal(in_pieces(kFast, row, qkv, piece, Caches(row, 1, 150, dtype)), want))
            << name_of(row) << ", by " << piece;
      }
    }
  }
}

// The more threads, the smaller the blocks of tokens that they share.
TEST(CpuAttention, GivesTheSameBitsForAnyNumberOfThreads) {
  const auto threads = at::get_num_threads();
  for (const auto& row : kAttentionCases) {
    const auto qkv = random_qkv(row, 300);
    const auto with_threads = [&](int count, int64_t piece) {
      at::set_num_threads(count);
      return in_pieces(kFast, row, qkv, piece, Caches(row, 1, 300));
    };
    for (const int64_t piece : {1, 300}) {
      const auto one = with_threads(1, piece);
      for (const int many : {3, 16}) {
        EXPECT_TRUE(at::equal(with_threads(many, piece), one)) << name_of(row) << ", " << many;
      }
    }
  }
  at::set_num_threads(threads);
}

TEST(CpuAttention, SequencesOfAPassDoNotSeeEachOther) {
  for (const auto& row : kAttentionCases) {
    const auto qkv = random_qkv(row, 30);
    const std::vector<Segment> segments{{0, 20, 0}, {20, 1, 0}, {21, 9, 0}};
    const auto together = attend(kFast, row, Pass::kPrompt, qkv, segments, Caches(row, 3, 20));
    for (const auto& segment : segments) {
      const auto part = qkv.narrow(0, segment.first_token, segment.tokens);
      const auto alone =
          attend(kFast, row, Pass::kPrompt, part, {{0, segment.tokens, 0}}, Caches(row, 1, 20));
      EXPECT_TRUE(at::equal(together.narrow(0, segment.first_token, segment.tokens), alone))
          << name_of(row);
    }
  }
}

// Texts of other lengths, each continued by a token.
TEST(CpuAttention, TokensOfADecodePassDoNotSeeEachOther) {
  for (const auto& row : kAttentionCases) {
    const std::vector<int64_t> lengths{70, 1, 130};
    const Caches caches(row, 3, 140);
    std::vector<Segment> segments;
    std::vector<at::Tensor> alone;
    for (const auto length : lengths) {
      const auto qkv = random_qkv(row, length + 1);
      const auto token = std::ssize(segments);
      // Filled one by one: the caches of the others are between.
      std::vector<Segment> fill(segments.size() + 1, Segment{0, 0, 0});
      const Caches own(row, 1, 140);
      attend(kFast, row, Pass::kPrompt, qkv.narrow(0, 0, length), {{0, length, 0}}, own);
      alone.push_back(
          attend(kFast, row, Pass::kDecode, qkv.narrow(0, length, 1), {{0, 1, length}}, own));
      fill.back() = {0, length, 0};
      attend(kFast, row, Pass::kPrompt, qkv.narrow(0, 0, length), fill, caches);
      segments.push_back({token, 1, length});
    }
    std::vector<at::Tensor> last;
    for (const auto length : lengths) last.push_back(random_qkv(row, length + 1)[length]);
    const auto together = attend(kFast, row, Pass::kDecode, at::stack(last), segments, caches);
    EXPECT_TRUE(at::equal(together, at::cat(alone))) << name_of(row);
  }
}

// Attention of tokens that see each other, one key at a time, in float64: qkv [T, (H + 2K) * D],
// already normalised; `sees` says of a token and a key whether the one sees the other.
template <typename Sees>
at::Tensor brute_force(const AttentionCase& row, const at::Tensor& qkv, const Sees& sees) {
  const auto tokens = qkv.size(0);
  const auto heads = qkv.view({1, tokens, -1, row.dim});
  const auto freqs = precompute_freqs_cis(row.dim, 1000, 1e4).narrow(0, 0, tokens);
  const auto part = [&](int64_t first, int64_t count) { return heads.narrow(2, first, count); };
  const auto turned = [&](int64_t first, int64_t count) {
    return apply_rotary_emb(part(first, count), freqs)[0].to(at::kDouble);
  };
  const auto q = turned(0, row.heads) * 0.3;
  const auto k = turned(row.heads, row.kv_heads);
  const auto v = part(row.heads + row.kv_heads, row.kv_heads)[0].to(at::kDouble);
  auto out = at::zeros({tokens, row.heads, row.dim}, at::kDouble);
  for (int64_t token = 0; token < tokens; ++token) {
    std::vector<int64_t> seen;
    for (int64_t key = 0; key < tokens; ++key) {
      if (sees(token, key)) seen.push_back(key);
    }
    const auto keys = at::tensor(seen);
    for (int64_t head = 0; head < row.heads; ++head) {
      const auto kv_head = head / (row.heads / row.kv_heads);
      auto scores = at::mv(k.select(1, kv_head).index_select(0, keys), q[token][head]);
      if (row.softcap) scores = at::tanh(scores / *row.softcap) * *row.softcap;
      const auto values = v.select(1, kv_head).index_select(0, keys);
      out[token][head] = at::mv(values.t(), at::softmax(scores, 0));
    }
  }
  return out.flatten(1);
}

// Windows of 1, of less and more than a block of the kernel, and larger than the text.
const std::vector<AttentionCase> kTwoSided{{2, 2, 12, 1, std::nullopt, false},
                                           {3, 1, 24, 5, std::nullopt, false},
                                           {6, 2, 64, 40, 5.0, false},
                                           {3, 1, 256, 65, std::nullopt, false},
                                           {100, 1, 8, 130, std::nullopt, false},
                                           {2, 1, 16, 200, std::nullopt, false},
                                           {3, 1, 24, std::nullopt, std::nullopt, false}};

constexpr Segment two_sided(int64_t first_token, int64_t tokens) {
  return {first_token, tokens, /*position=*/0, /*bidirectional=*/true, WindowSide::kBoth};
}

TEST(CpuAttention, ATwoSidedWindowBoundsWhatIsBeforeATokenAndAfterIt) {
  for (const auto& row : kTwoSided) {
    const auto qkv = random_qkv(row, 150);
    const auto want = brute_force(row, qkv, [&](int64_t token, int64_t key) {
      return !row.window || std::abs(token - key) < *row.window;
    });
    for (const auto* ops : {static_cast<const Ops*>(&kFast), static_cast<const Ops*>(&kExact)}) {
      const auto got =
          attend(*ops, row, Pass::kPrompt, qkv, {two_sided(0, 150)}, Caches(row, 1, 150));
      EXPECT_TRUE(near_to(got, want, 1e-5)) << name_of(row) << (ops == &kExact ? ", Ops" : "");
    }
  }
}

TEST(CpuAttention, AnImageSeesAllOfItselfHoweverShortTheWindow) {
  const auto& row = kTwoSided[1];
  const auto qkv = random_qkv(row, 150);
  const auto want =
      brute_force(row, qkv, [&](int64_t token, int64_t key) { return key > token - *row.window; });
  const Segment image{0, 150, /*position=*/0, /*bidirectional=*/true};
  for (const auto* ops : {static_cast<const Ops*>(&kFast), static_cast<const Ops*>(&kExact)}) {
    EXPECT_TRUE(
        near_to(attend(*ops, row, Pass::kPrompt, qkv, {image}, Caches(row, 1, 150)), want, 1e-5));
  }
}

TEST(CpuAttention, ATwoSidedTextHasTheSameBitsAloneAndBesideOthersOnAnyThreads) {
  const auto threads = at::get_num_threads();
  for (const auto& row : kTwoSided) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const auto qkv = random_qkv(row, 300);
      const std::vector<Segment> segments{two_sided(0, 1), two_sided(1, 170), two_sided(171, 129)};
      at::set_num_threads(1);
      std::vector<at::Tensor> alone;
      for (const auto& segment : segments) {
        alone.push_back(attend(kFast, row, Pass::kPrompt,
                               qkv.narrow(0, segment.first_token, segment.tokens),
                               {two_sided(0, segment.tokens)}, Caches(row, 1, 170, dtype)));
      }
      for (const int many : {1, 3, 16}) {
        at::set_num_threads(many);
        const auto together =
            attend(kFast, row, Pass::kPrompt, qkv, segments, Caches(row, 3, 170, dtype));
        EXPECT_TRUE(at::equal(together, at::cat(alone))) << name_of(row) << ", " << many;
      }
    }
  }
  at::set_num_threads(threads);
}

TEST(CpuAttention, ABFloat16CacheIsReadAsItWasRounded) {
  const auto& row = kAttentionCases[3];
  const auto qkv = random_qkv(row, 128);  // Whole blocks: the others hold NaN.
  for (const int64_t piece : {1, 32}) {
    const Caches fast(row, 1, 128, at::kBFloat16);
    const Caches slow(row, 1, 128, at::kBFloat16);
    in_pieces(kFast, row, qkv, piece, fast);
    in_pieces(Ops(), row, qkv, piece, slow);
    // Another order of summation may round a number the other way.
    EXPECT_TRUE(near_to(fast.cache().k, slow.cache().k.to(at::kDouble), 1e-2));
    EXPECT_TRUE(at::equal(fast.cache().v, slow.cache().v));
  }
}

TEST(CpuAttention, ABFloat16CacheServesPromptsAsItServesTokens) {
  for (const auto& row : kAttentionCases) {
    const auto qkv = random_qkv(row, 150);
    const auto by = [&](int64_t piece) {
      return in_pieces(kFast, row, qkv, piece, Caches(row, 1, 150, at::kBFloat16));
    };
    EXPECT_TRUE(near_to(by(50), by(1).to(at::kDouble), 1e-5)) << name_of(row);
  }
}

}  // namespace
}  // namespace gemma
