#include <algorithm>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/config/dtype_name.h>
#include <gemma/engine/engine.h>

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

int64_t end_of(const ImageTokens& image) { return image.first + image.embeddings.size(0); }

// Cuts a feed into parts of at most `chunk` tokens, but no image in two.
class Chunks {
 public:
  Chunks(const Engine::Feed& feed, int64_t chunk) : feed_(feed), chunk_(chunk) {}

  bool done() const { return taken_ == std::ssize(feed_.tokens); }

  // The next part; its images count from its own first token.
  Engine::Feed next() {
    auto end = std::min(taken_ + chunk_, std::ssize(feed_.tokens));
    images_.clear();
    for (const auto& image : feed_.images) {
      if (image.first < taken_ || image.first >= end) continue;
      if (end_of(image) > end) {
        end = image.first;
        break;
      }
      images_.push_back({image.first - taken_, image.embeddings});
    }
    const auto tokens = feed_.tokens.subspan(taken_, end - taken_);
    taken_ = end;
    return {feed_.sequence, tokens, images_};
  }

 private:
  Engine::Feed feed_;
  int64_t chunk_;
  int64_t taken_ = 0;
  std::vector<ImageTokens> images_;
};

// The segments of a feed whose tokens begin at `first_token`: each image is one, and so is what is
// between images.
void append_segments(const Engine::Feed& feed,
                     int64_t first_token,
                     std::vector<Segment>& segments) {
  const auto position = feed.sequence->length();
  const auto append = [&](int64_t begin, int64_t end, bool is_image) {
    if (begin == end) return;
    segments.push_back({.first_token = first_token + begin,
                        .tokens = end - begin,
                        .position = position + begin,
                        .bidirectional = is_image});
  };
  int64_t done = 0;
  for (const auto& image : feed.images) {
    append(done, image.first, false);
    append(image.first, end_of(image), true);
    done = end_of(image);
  }
  append(done, std::ssize(feed.tokens), false);
}

int64_t bytes_of(const at::Tensor& tensor) { return static_cast<int64_t>(tensor.nbytes()); }

}  // namespace

int64_t Sequence::bytes() const {
  int64_t total = 0;
  for (const auto& cache : caches_) total += bytes_of(cache.k) + bytes_of(cache.v);
  return total;
}

Engine::Engine(LanguageModel model, const EngineOptions& options)
    : model_(std::move(model)), options_(options) {
  if (options.kv_dtype != torch::kFloat32 && options.kv_dtype != torch::kBFloat16) {
    throw std::invalid_argument(fmt::format(
        "Engine: kv_dtype is {}, but must be float32 or bfloat16", dtype_name(options.kv_dtype)));
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
    const auto& [sequence, tokens, images] = feeds[i];
    const auto is_same = [&feed = feeds[i]](const Feed& other) {
      return other.sequence == feed.sequence;
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
    check_images(feeds[i]);
  }
}

void Engine::check_images(const Feed& feed) const {
  const auto width = model_->config().hidden_size;
  int64_t done = 0;
  for (const auto& image : feed.images) {
    const auto& embeddings = image.embeddings;
    if (embeddings.dim() != 2 || embeddings.size(1) != width ||
        embeddings.size(0) > options_.chunk) {
      throw std::invalid_argument(fmt::format("Engine: an image is [{}], but must be [1 to {}, {}]",
                                              fmt::join(embeddings.sizes().vec(), ", "),
                                              options_.chunk, width));
    }
    if (image.first < done || end_of(image) > std::ssize(feed.tokens)) {
      throw std::invalid_argument(
          fmt::format("Engine: an image has tokens {} to {}, but of {} tokens {} are taken",
                      image.first, end_of(image) - 1, feed.tokens.size(), done));
    }
    done = end_of(image);
  }
}

// Feeds of at most a chunk each -> the hidden states of all their tokens.
torch::Tensor Engine::forward(std::span<const Feed> feeds) {
  std::vector<int64_t> ids;
  std::vector<Segment> segments;
  std::vector<const Sequence*> whose;
  for (const auto& feed : feeds) {
    reserve(*feed.sequence, feed.sequence->length_ + std::ssize(feed.tokens));
    append_segments(feed, std::ssize(ids), segments);
    whose.resize(segments.size(), feed.sequence);
    ids.insert(ids.end(), feed.tokens.begin(), feed.tokens.end());
  }
  std::vector<std::vector<RingCache>> caches(model_->config().num_hidden_layers);
  for (size_t layer = 0; layer < caches.size(); ++layer) {
    for (const auto* sequence : whose) caches[layer].push_back(sequence->caches_[layer]);
  }
  auto hidden = model_->hidden_states(embed(ids, feeds), segments, caches, options_.on_layer);
  for (const auto& feed : feeds) feed.sequence->length_ += std::ssize(feed.tokens);
  return hidden;
}

// [T, E] of the tokens, or of the images in their places.
torch::Tensor Engine::embed(const std::vector<int64_t>& ids, std::span<const Feed> feeds) {
  const torch::NoGradGuard no_grad;
  auto embeddings = model_->embed(at::tensor(ids, at::kLong).to(model_->embedder->weight.device()));
  int64_t row = 0;
  for (const auto& feed : feeds) {
    for (const auto& image : feed.images) {
      embeddings.narrow(0, row + image.first, image.embeddings.size(0)).copy_(image.embeddings);
    }
    row += std::ssize(feed.tokens);
  }
  return embeddings;
}

torch::Tensor Engine::step(std::span<const Feed> feeds) {
  const UseLock::Use use(model_->use_lock());
  check(feeds);
  std::vector<Chunks> left;
  for (const auto& feed : feeds) left.emplace_back(feed, options_.chunk);
  std::vector<at::Tensor> last(feeds.size());
  for (;;) {
    std::vector<Feed> now;
    std::vector<size_t> whose;
    for (size_t i = 0; i < left.size(); ++i) {
      if (left[i].done()) continue;
      now.push_back(left[i].next());
      whose.push_back(i);
    }
    if (now.empty()) break;
    const auto hidden = forward(now);
    int64_t row = 0;
    for (size_t i = 0; i < now.size(); ++i) {
      row += std::ssize(now[i].tokens);
      if (left[whose[i]].done()) last[whose[i]] = hidden.narrow(0, row - 1, 1);
    }
  }
  return last.size() == 1 ? last.front() : at::cat(last);
}

torch::Tensor Engine::extend(Sequence& sequence,
                             std::span<const int64_t> tokens,
                             std::span<const ImageTokens> images) {
  const UseLock::Use use(model_->use_lock());
  const Feed whole{&sequence, tokens, images};
  check({&whole, 1});
  std::vector<at::Tensor> parts;
  for (Chunks left(whole, options_.chunk); !left.done();) {
    const auto part = left.next();
    parts.push_back(forward({&part, 1}));
  }
  return at::cat(parts);
}

}  // namespace gemma
