#include <algorithm>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/generate/engine.h>

namespace gemma {
namespace {

constexpr int64_t kFirstSlots = 256;

int64_t padded(int64_t head_dim) {
  return (head_dim + RingCache::kPadding - 1) / RingCache::kPadding * RingCache::kPadding;
}

// The slots of a cache that has `slots` and is to hold positions up to `length`, `most` at the
// most.
int64_t grown(int64_t slots, int64_t length, int64_t most) {
  if (length <= slots || slots == most) return slots;
  return std::min(most, std::max({length, 2 * slots, kFirstSlots}));
}

// The same keys or values with more slots. Nothing has wrapped around yet: a ring grows to its full
// size before its first slot is used again.
at::Tensor with_slots(const at::Tensor& cache, int64_t slots) {
  auto larger = at::zeros({cache.size(0), slots, cache.size(2)}, cache.options());
  larger.narrow(1, 0, cache.size(1)).copy_(cache);
  return larger;
}

int64_t bytes_of(const at::Tensor& tensor) { return static_cast<int64_t>(tensor.nbytes()); }

}  // namespace

int64_t Sequence::bytes() const {
  int64_t total = 0;
  for (const auto& cache : caches_) total += bytes_of(cache.k) + bytes_of(cache.v);
  return total;
}

Engine::Engine(GemmaForCausalLM model, const EngineOptions& options)
    : model_(std::move(model)), options_(options) {
  if (options.kv_dtype != torch::kFloat32 && options.kv_dtype != torch::kBFloat16) {
    throw std::invalid_argument(
        fmt::format("Engine: kv_dtype is {}, but must be float32 or bfloat16",
                    c10::toString(options.kv_dtype)));
  }
  if (options.chunk < 1) {
    throw std::invalid_argument(
        fmt::format("Engine: chunk is {}, but must be 1 or more tokens", options.chunk));
  }
}

Sequence Engine::make_sequence() const {
  const auto& config = model_->config();
  const auto options =
      at::TensorOptions().dtype(options_.kv_dtype).device(model_->embedder->weight.device());
  Sequence sequence;
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const auto none = [&] {
      return at::zeros({config.num_key_value_heads, 0, padded(config.head_dim)}, options);
    };
    sequence.caches_.push_back({none(), none()});
  }
  return sequence;
}

void Engine::reserve(Sequence& sequence, int64_t length) const {
  const auto& config = model_->config();
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const bool local = config.architecture != Architecture::kGemma1 &&
                       config.attn_type(i) == AttentionType::kLocalSliding &&
                       config.sliding_window_size.has_value();
    // A chunk's first token sees a window back from itself, while its last is written already.
    const auto most = local ? std::min(*config.sliding_window_size + options_.chunk,
                                       config.max_position_embeddings)
                            : config.max_position_embeddings;
    auto& cache = sequence.caches_[i];
    const auto slots = grown(cache.k.size(1), length, most);
    if (slots == cache.k.size(1)) continue;
    cache = {with_slots(cache.k, slots), with_slots(cache.v, slots)};
  }
}

void Engine::check(std::span<const Feed> feeds) const {
  const auto most = model_->config().max_position_embeddings;
  for (size_t i = 0; i < feeds.size(); ++i) {
    const auto& [sequence, tokens] = feeds[i];
    const auto is_same = [sequence = sequence](const Feed& other) {
      return other.sequence == sequence;
    };
    if (std::ranges::any_of(feeds.first(i), is_same)) {
      throw std::invalid_argument("Engine: a sequence comes twice in a step; join its tokens");
    }
    if (tokens.empty()) {
      throw std::invalid_argument("Engine: a feed has no tokens; give at least one");
    }
    if (std::ssize(tokens) > most - sequence->length()) {
      throw std::invalid_argument(fmt::format(
          "Engine: a sequence of {} tokens and {} more exceed max_position_embeddings, {}",
          sequence->length(), tokens.size(), most));
    }
  }
}

// Feeds of at most a chunk each -> the hidden states of all their tokens.
torch::Tensor Engine::forward(std::span<const Feed> feeds) {
  std::vector<int64_t> ids;
  std::vector<TokenRun> runs;
  for (const auto& [sequence, tokens] : feeds) {
    reserve(*sequence, sequence->length_ + std::ssize(tokens));
    runs.push_back(
        {.first_row = std::ssize(ids), .rows = std::ssize(tokens), .position = sequence->length_});
    ids.insert(ids.end(), tokens.begin(), tokens.end());
  }
  std::vector<std::vector<RingCache>> caches(model_->config().num_hidden_layers);
  for (size_t layer = 0; layer < caches.size(); ++layer) {
    for (const auto& feed : feeds) caches[layer].push_back(feed.sequence->caches_[layer]);
  }
  const auto token_ids = at::tensor(ids, at::kLong).to(model_->embedder->weight.device());
  auto hidden = model_->hidden_states(token_ids, runs, caches);
  for (const auto& [sequence, tokens] : feeds) sequence->length_ += std::ssize(tokens);
  return hidden;
}

torch::Tensor Engine::step(std::span<const Feed> feeds) {
  check(feeds);
  std::vector<Feed> left(feeds.begin(), feeds.end());
  std::vector<at::Tensor> last(feeds.size());
  for (;;) {
    std::vector<Feed> now;
    std::vector<size_t> whose;
    for (size_t i = 0; i < left.size(); ++i) {
      auto& tokens = left[i].tokens;
      if (tokens.empty()) continue;
      const auto count = std::min(tokens.size(), static_cast<size_t>(options_.chunk));
      now.push_back({left[i].sequence, tokens.first(count)});
      whose.push_back(i);
      tokens = tokens.subspan(count);
    }
    if (now.empty()) break;
    const auto hidden = forward(now);
    int64_t row = 0;
    for (size_t i = 0; i < now.size(); ++i) {
      row += std::ssize(now[i].tokens);
      if (left[whose[i]].tokens.empty()) last[whose[i]] = hidden.narrow(0, row - 1, 1);
    }
  }
  return last.size() == 1 ? last.front() : at::cat(last);
}

torch::Tensor Engine::extend(Sequence& sequence, std::span<const int64_t> tokens) {
  const Feed whole{&sequence, tokens};
  check({&whole, 1});
  std::vector<at::Tensor> parts;
  while (!tokens.empty()) {
    const auto count = std::min(tokens.size(), static_cast<size_t>(options_.chunk));
    const Feed part{&sequence, tokens.first(count)};
    parts.push_back(forward({&part, 1}));
    tokens = tokens.subspan(count);
  }
  return at::cat(parts);
}

}  // namespace gemma
