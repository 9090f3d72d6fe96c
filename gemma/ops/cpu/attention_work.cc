#include <algorithm>
#include <cmath>

#include <ATen/ops/empty.h>

#include <gemma/ops/cpu/attention_work.h>
#include <gemma/ops/parallel.h>

namespace gemma {
namespace {

// Keys that one task of one token's attention takes: the same for any number of threads, so the
// result is the same too. Few for short texts, so that all threads have tasks; more for long ones,
// as the parts have to be combined at the end.
int64_t keys_per_task(int64_t keys) {
  constexpr int64_t kTasks = 8;
  constexpr int64_t kLeast = 32;
  constexpr int64_t kMost = 128;
  return std::clamp(cpu::round_up(keys / kTasks, 8), kLeast, kMost);
}

// A norm's weight, ready for the kernel; without data if there is none.
struct HeadNorm {
  explicit HeadNorm(const std::optional<NormWeight>& norm)
      : weight(norm ? WeightView(norm->weight) : WeightView(at::empty({1}, at::kFloat))),
        offset(norm && norm->add_unit_offset ? 1.0F : 0.0F),
        eps(norm ? static_cast<float>(norm->eps) : 0.0F),
        present(norm.has_value()) {}

  // x or its norm, which is written to `out`.
  const float* operator()(const float* x, float* out) const {
    if (!present) return x;
    cpu::kernels().rms_norm(x, *weight, offset, eps, nullptr, out);
    return out;
  }

  CpuWeight weight;
  float offset, eps;
  bool present;
};

// Each task takes some keys of a token's, then the parts are combined.
class TokenAttention {
 public:
  TokenAttention(const Attention& attention, const AttentionTokens& tokens)
      : attention_(attention), tokens_(tokens) {
    for (const auto& token : tokens.segments) {
      const auto first = attention.first_key(token.position);
      const auto keys = keys_per_task(token.position - first + 1);
      parts_.push_back({std::ssize(tasks_), first, keys});
      for (auto begin = first; begin <= token.position; begin += keys) {
        tasks_.push_back(std::ssize(parts_) - 1);
      }
    }
    const auto heads = std::ssize(tasks_) * attention.shape.num_heads;
    partial_.resize(static_cast<size_t>(heads));
    values_ = Buffer<float>(heads * attention.stride);
  }

  int64_t tasks() const { return std::ssize(tasks_) * attention_.shape.num_kv_heads; }

  void work(int64_t task) {
    const auto [num_heads, num_kv_heads, _] = attention_.shape;
    const auto part = task / num_kv_heads;
    const auto kv_head = task % num_kv_heads;
    const auto head = kv_head * attention_.group();
    const auto token = tasks_[part];
    const auto& parts = parts_[token];
    const auto begin = parts.first_key + (part - parts.begin) * parts.keys;
    const auto end = std::min(begin + parts.keys, tokens_.segments[token].position + 1);
    const auto at = part * num_heads + head;
    cpu::kernels().attend_one(tokens_.q + (token * num_heads + head) * attention_.stride,
                              attention_.group(), tokens_.caches[token * num_kv_heads + kv_head],
                              begin, end, attention_.softcap, &partial_[at],
                              values_.get() + at * attention_.stride);
  }

  // out [T, H, D]: those of a token.
  void finish(int64_t token, float* out) const {
    const auto [num_heads, _, dim] = attention_.shape;
    const auto begin = parts_[token].begin * num_heads;
    const auto end =
        (token + 1 < std::ssize(parts_) ? parts_[token + 1].begin : std::ssize(tasks_)) * num_heads;
    for (int64_t head = 0; head < num_heads; ++head) {
      auto highest = partial_[begin + head].max;
      for (auto at = begin + head; at < end; at += num_heads) {
        highest = std::max(highest, partial_[at].max);
      }
      auto* const to = out + (token * num_heads + head) * dim;
      std::fill_n(to, dim, 0.0F);
      auto total = 0.0F;
      for (auto at = begin + head; at < end; at += num_heads) {
        const auto factor = std::exp(partial_[at].max - highest);
        total += factor * partial_[at].sum;
        const auto* const values = values_.get() + at * attention_.stride;
        for (int64_t i = 0; i < dim; ++i) to[i] += factor * values[i];
      }
      for (int64_t i = 0; i < dim; ++i) to[i] /= total;
    }
  }

 private:
  // A token's: `begin` counts all tokens' parts, and each but the last takes `keys` keys.
  struct Parts {
    int64_t begin, first_key, keys;
  };

  const Attention& attention_;
  const AttentionTokens& tokens_;
  std::vector<Parts> parts_;                  // [T]
  std::vector<int64_t> tasks_;                // [parts], whose each is.
  std::vector<cpu::PartialSoftmax> partial_;  // [parts, H]
  Buffer<float> values_;                      // [parts, H, stride]
};

// The blocks of all segments together.
class ChunkAttention {
 public:
  ChunkAttention(const Attention& attention, const AttentionTokens& tokens, float* out)
      : attention_(attention), tokens_(tokens), out_(out) {
    const auto segments = tokens.segments;
    // A group larger than a block is cut into pieces.
    heads_ = std::min(attention.group(), kernels_.attend_rows);
    pieces_ = cpu::round_up(attention.group(), heads_) / heads_;
    int64_t count = 0;
    for (const auto& segment : segments) count += segment.tokens;
    // Each block packs the keys and values that it sees. So blocks are large for few threads, and
    // small enough for each of many threads to have some.
    constexpr int64_t kBlocksPerWorker = 3;
    const auto share = count * heads_ * pieces_ * attention.shape.num_kv_heads /
                           (num_workers() * kBlocksPerWorker) +
                       1;
    const auto rows = std::min(cpu::round_up(share, kernels_.attend_mr), kernels_.attend_rows);
    block_tokens_ = std::max<int64_t>(1, rows / heads_);
    // The last blocks of a segment come first, as they take longest.
    for (int64_t i = 0; i < std::ssize(segments); ++i) {
      const auto blocks = cpu::round_up(segments[i].tokens, block_tokens_) / block_tokens_;
      for (auto block = blocks - 1; block >= 0; --block)
        blocks_.push_back({i, block * block_tokens_});
    }
  }

  void run() const {
    const auto num_kv_heads = attention_.shape.num_kv_heads;
    const Scratch scratch(kernels_.attend_scratch(*tokens_.caches));
    parallel_for(std::ssize(blocks_) * num_kv_heads * pieces_, [&](int64_t task, int64_t worker) {
      const auto& block = blocks_[task / num_kv_heads / pieces_];
      attend(block, task % num_kv_heads, task / num_kv_heads % pieces_, scratch.of(worker));
    });
  }

 private:
  struct Block {
    int64_t segment, first;
  };

  void attend(const Block& block, int64_t kv_head, int64_t piece, float* scratch) const {
    const auto [num_heads, num_kv_heads, dim] = attention_.shape;
    const auto& segment = tokens_.segments[block.segment];
    const auto head = kv_head * attention_.group() + piece * heads_;
    const auto at = (segment.first_token + block.first) * num_heads + head;
    kernels_.attend_block(
        {
            .q = tokens_.q + at * attention_.stride,
            .ld_q = num_heads * attention_.stride,
            .tokens = std::min(block_tokens_, segment.tokens - block.first),
            .heads = std::min(heads_, attention_.group() - piece * heads_),
            .position = segment.position + block.first,
            .window = segment.window_side == WindowSide::kNone ? 0 : attention_.window,
            .run_end = segment.bidirectional ? segment.position + segment.tokens : 0,
            .ahead = segment.window_side == WindowSide::kBoth ? attention_.window : 0,
            .softcap = attention_.softcap,
            .out = out_ + at * dim,
            .ld_out = num_heads * dim,
        },
        tokens_.caches[block.segment * num_kv_heads + kv_head], scratch);
  }

  const cpu::Kernels& kernels_ = cpu::kernels();
  const Attention& attention_;
  const AttentionTokens& tokens_;
  float* out_;
  int64_t heads_, pieces_, block_tokens_;
  std::vector<Block> blocks_;
};

}  // namespace

int64_t Attention::first_key(int64_t position) const {
  return window > 0 ? std::max<int64_t>(0, position - window + 1) : 0;
}

void prepare_tokens(const Attention& attention,
                    const HeadNorms& norms,
                    const at::Tensor& freqs_cis,
                    const at::Tensor& qkv,
                    const AttentionTokens& tokens) {
  const auto& kernels = cpu::kernels();
  const auto [num_heads, num_kv_heads, dim] = attention.shape;
  const auto stride = attention.stride;
  const HeadNorm query_norm(norms.query), key_norm(norms.key);
  const auto freqs = freqs_cis.contiguous();
  struct Token {
    int64_t segment, row;
  };
  std::vector<Token> all;
  for (int64_t i = 0; i < std::ssize(tokens.segments); ++i) {
    for (int64_t row = 0; row < tokens.segments[i].tokens; ++row) all.push_back({i, row});
  }
  const Scratch scratch(2 * stride);
  each_row(std::ssize(all), [&](int64_t token, int64_t worker) {
    const auto [segment, row] = all[token];
    const auto position = tokens.segments[segment].position + row;
    const auto at = tokens.segments[segment].first_token + row;
    const auto* const freq = static_cast<const float*>(freqs.const_data_ptr()) + at * dim;
    const auto* x = qkv.const_data_ptr<float>() + at * qkv.size(1);
    auto* const queries = tokens.q + at * num_heads * stride;
    auto* const memory = scratch.of(worker);
    auto* const key = memory + stride;
    for (int64_t head = 0; head < num_heads; ++head, x += dim) {
      kernels.rotate(query_norm(x, memory), freq, static_cast<float>(attention.scaling), dim,
                     queries + head * stride);
    }
    for (int64_t head = 0; head < num_kv_heads; ++head, x += dim) {
      kernels.rotate(key_norm(x, memory), freq, 1.0F, dim, key);
      kernels.write_position(tokens.caches[segment * num_kv_heads + head], position, key,
                             x + num_kv_heads * dim);
    }
  });
}

void attend_tokens(const Attention& attention, const AttentionTokens& tokens, float* out) {
  TokenAttention work(attention, tokens);
  parallel_for(work.tasks(), [&](int64_t task, int64_t /*worker*/) { work.work(task); });
  each_row(std::ssize(tokens.segments),
           [&](int64_t token, int64_t /*worker*/) { work.finish(token, out); });
}

void attend_chunks(const Attention& attention, const AttentionTokens& tokens, float* out) {
  ChunkAttention(attention, tokens, out).run();
}

}  // namespace gemma
