#include <algorithm>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/engine/model_runner.h>

namespace gemma {
namespace {

// Cuts a feed into parts, but no image in two.
class Chunks {
 public:
  explicit Chunks(const ModelRunner::Feed& feed) : feed_(feed) {}

  bool done() const { return taken_ == std::ssize(feed_.tokens); }

  // The next part, of at most so many tokens: of none when an image has no room. Its images count
  // from its own first token.
  ModelRunner::Feed next(int64_t most) {
    auto end = std::min(taken_ + most, std::ssize(feed_.tokens));
    images_.clear();
    for (const auto& image : feed_.images) {
      if (image.first < taken_ || image.first >= end) continue;
      if (image.end() > end) {
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
  ModelRunner::Feed feed_;
  int64_t taken_ = 0;
  std::vector<ImageTokens> images_;
};

// The segments of a feed whose tokens begin at `first_token`: each image is one, and so is what is
// between images.
void append_segments(const ModelRunner::Feed& feed,
                     int64_t first_token,
                     bool prefix_ignores_window,
                     std::vector<Segment>& segments) {
  const auto position = feed.sequence->length();
  const auto append = [&](int64_t begin, int64_t end, bool is_image) {
    if (begin == end) return;
    const bool is_free = is_image && prefix_ignores_window && position + begin == 0;
    segments.push_back({.first_token = first_token + begin,
                        .tokens = end - begin,
                        .position = position + begin,
                        .bidirectional = is_image,
                        .window_side = is_free ? WindowSide::kNone : WindowSide::kBefore});
  };
  int64_t done = 0;
  for (const auto& image : feed.images) {
    append(done, image.first, false);
    append(image.first, image.end(), true);
    done = image.end();
  }
  append(done, std::ssize(feed.tokens), false);
}

// The tokens of a pass, and whose the segments are that they make.
struct PassTokens {
  std::vector<int64_t> ids;
  std::vector<Segment> segments;
  std::vector<const Sequence*> whose;
};

PassTokens prompt_tokens(std::span<const ModelRunner::Feed> feeds, bool prefix_ignores_window) {
  PassTokens pass;
  for (const auto& feed : feeds) {
    append_segments(feed, std::ssize(pass.ids), prefix_ignores_window, pass.segments);
    pass.whose.resize(pass.segments.size(), feed.sequence);
    pass.ids.insert(pass.ids.end(), feed.tokens.begin(), feed.tokens.end());
  }
  return pass;
}

// The first token of each feed, then the others. Each is a segment, as it is alone.
PassTokens decode_tokens(std::span<const ModelRunner::Feed> feeds) {
  PassTokens pass;
  const auto append = [&](const ModelRunner::Feed& feed, size_t i) {
    pass.segments.push_back({.first_token = std::ssize(pass.ids),
                             .tokens = 1,
                             .position = feed.sequence->length() + static_cast<int64_t>(i)});
    pass.whose.push_back(feed.sequence);
    pass.ids.push_back(feed.tokens[i]);
  };
  for (const auto& feed : feeds) append(feed, 0);
  for (const auto& feed : feeds) {
    for (size_t i = 1; i < feed.tokens.size(); ++i) append(feed, i);
  }
  return pass;
}

}  // namespace

ModelRunner::ModelRunner(EngineModel model, const RunnerOptions& options)
    : model_(std::move(model)), options_(options) {
  if (options.chunk < 1) {
    throw std::invalid_argument(
        fmt::format("ModelRunner: chunk is {}, but must be 1 or more tokens", options.chunk));
  }
  if (options.max_batch < 1) {
    throw std::invalid_argument(fmt::format(
        "ModelRunner: max_batch is {}, but must be 1 or more sequences", options.max_batch));
  }
  const auto most = model_->max_positions();
  store_ = std::make_shared<StateStore>(
      *model_, StatePlan{.dtype = options.kv_dtype,
                         .sequences = options.max_batch,
                         .positions = std::min(options.positions.value_or(most), most),
                         .chunk = options.chunk,
                         .bytes = options.kv_memory});
}

void ModelRunner::check(std::span<const Feed> feeds) const {
  const auto most = model_->max_positions();
  for (size_t i = 0; i < feeds.size(); ++i) {
    const auto& [sequence, tokens, images] = feeds[i];
    const auto is_same = [&feed = feeds[i]](const Feed& other) {
      return other.sequence == feed.sequence;
    };
    if (std::ranges::any_of(feeds.first(i), is_same)) {
      throw std::invalid_argument("ModelRunner: a sequence comes twice in a step; join its tokens");
    }
    if (tokens.empty()) {
      throw std::invalid_argument("ModelRunner: a feed has no tokens; give at least one");
    }
    if (std::ssize(tokens) > most - sequence->length()) {
      throw std::invalid_argument(fmt::format(
          "ModelRunner: a sequence of {} tokens and {} more exceed max_position_embeddings, {}",
          sequence->length(), tokens.size(), most));
    }
    check_images(feeds[i]);
  }
}

void ModelRunner::check_images(const Feed& feed) const {
  const auto width = model_->hidden_size();
  int64_t done = 0;
  for (const auto& image : feed.images) {
    const auto& embeddings = image.embeddings;
    if (embeddings.dim() != 2 || embeddings.size(1) != width ||
        embeddings.size(0) > options_.chunk) {
      throw std::invalid_argument(
          fmt::format("ModelRunner: an image is [{}], but must be [1 to {}, {}]",
                      fmt::join(embeddings.sizes().vec(), ", "), options_.chunk, width));
    }
    if (image.first < done || image.end() > std::ssize(feed.tokens)) {
      throw std::invalid_argument(
          fmt::format("ModelRunner: an image has tokens {} to {}, but of {} tokens {} are taken",
                      image.first, image.end() - 1, feed.tokens.size(), done));
    }
    done = image.end();
  }
}

bool ModelRunner::has_room(std::span<const Need> needs) const {
  int64_t slots = 0;
  for (const auto& need : needs) {
    slots += need.sequence != nullptr ? need.sequence->missing_slots() : store_->has_slots();
  }
  if (slots > store_->slots().pool.free()) return false;
  for (size_t i = 0; i < store_->kinds().size(); ++i) {
    int64_t missing = 0;
    for (const auto& [sequence, tokens] : needs) {
      missing +=
          sequence != nullptr ? sequence->missing(i, tokens) : BlockCache::blocks_for(tokens);
    }
    if (missing > store_->kinds()[i].pool.free()) return false;
  }
  return true;
}

// Blocks for the tokens, for all of the feeds or for none.
void ModelRunner::reserve(std::span<const Feed> feeds) {
  std::vector<Need> needs;
  for (const auto& feed : feeds) needs.push_back({feed.sequence, std::ssize(feed.tokens)});
  if (!has_room(needs)) {
    throw OutOfMemory(
        fmt::format("engine: the memory for keys and values, {} bytes, is in use; give kv_memory, "
                    "or end a sequence",
                    store_->bytes()));
  }
  for (const auto& feed : feeds) feed.sequence->reserve(std::ssize(feed.tokens));
}

// Feeds of a chunk altogether -> the hidden states of all their tokens.
torch::Tensor ModelRunner::forward(std::span<const Feed> feeds, Pass pass) {
  reserve(feeds);
  const auto [ids, segments, whose] = pass == Pass::kDecode
                                          ? decode_tokens(feeds)
                                          : prompt_tokens(feeds, model_->prefix_ignores_window());
  std::vector<int64_t> texts;
  for (const auto* sequence : whose) texts.push_back(sequence->number());
  std::vector<std::vector<BlockTable>> tables(store_->kinds().size());
  std::vector<LayerState> layers(store_->caches().size());
  for (size_t i = 0; i < tables.size(); ++i) {
    for (const auto* sequence : whose) tables[i].push_back(sequence->table(i));
    for (const auto layer : store_->kinds()[i].layers) {
      layers[layer] = AttentionState{store_->blocks_of(layer), tables[i]};
    }
  }
  std::vector<StateSlots> slots;
  for (size_t i = 0; i < whose.size(); ++i) {
    slots.push_back(whose[i]->step_slots());
    if (i > 0 && whose[i] == whose[i - 1]) slots[i].from = slots[i].to;
  }
  for (const auto layer : store_->slots().layers) {
    layers[layer] = RecurrentState{store_->states_of(layer), slots};
  }
  return model_->hidden_states(embed(ids, feeds), {pass, segments, layers, texts},
                               options_.on_layer);
}

// [T, E] of the tokens, or of the images in their places.
torch::Tensor ModelRunner::embed(const std::vector<int64_t>& ids, std::span<const Feed> feeds) {
  const torch::NoGradGuard no_grad;
  auto embeddings = model_->embed(at::tensor(ids, at::kLong).to(model_->device()));
  int64_t row = 0;
  for (const auto& feed : feeds) {
    for (const auto& image : feed.images) {
      embeddings.narrow(0, row + image.first, image.embeddings.size(0)).copy_(image.embeddings);
    }
    row += std::ssize(feed.tokens);
  }
  return embeddings;
}

torch::Tensor ModelRunner::prompt(std::span<const Feed> feeds, const OnHidden& on_hidden) {
  const UseLock::Use use(model_->use_lock());
  check(feeds);
  std::vector<Chunks> left(feeds.begin(), feeds.end());
  std::vector<at::Tensor> last(feeds.size());
  // Several short prompts go together.
  for (size_t first = 0; first < left.size();) {
    std::vector<Feed> now;
    auto room = options_.chunk;
    auto next = first;
    while (next < left.size() && room > 0) {
      const auto part = left[next].next(room);
      if (part.tokens.empty()) break;
      now.push_back(part);
      room -= std::ssize(part.tokens);
      if (!left[next].done()) break;
      ++next;
    }
    const auto hidden = forward(now, Pass::kPrompt);
    for (const auto& feed : now) feed.sequence->advance(std::ssize(feed.tokens));
    int64_t row = 0;
    for (size_t i = 0; i < now.size(); ++i) {
      const auto tokens = std::ssize(now[i].tokens);
      if (on_hidden) on_hidden(first + i, hidden.narrow(0, row, tokens));
      row += tokens;
      if (left[first + i].done()) last[first + i] = hidden.narrow(0, row - 1, 1);
    }
    first = next;
  }
  return last.size() == 1 ? last.front() : at::cat(last);
}

torch::Tensor ModelRunner::extend(Sequence& sequence,
                                  std::span<const int64_t> tokens,
                                  std::span<const ImageTokens> images) {
  const UseLock::Use use(model_->use_lock());
  const Feed whole{&sequence, tokens, images};
  check({&whole, 1});
  std::vector<at::Tensor> parts;
  for (Chunks left(whole); !left.done();) {
    const auto part = left.next(options_.chunk);
    parts.push_back(forward({&part, 1}, Pass::kPrompt));
    sequence.advance(std::ssize(part.tokens));
  }
  return at::cat(parts);
}

torch::Tensor ModelRunner::decode(std::span<const Next> nexts) {
  std::vector<Feed> feeds;
  for (const auto& next : nexts) feeds.push_back({next.sequence, {&next.token, 1}});
  auto hidden = try_out(feeds);
  for (const auto& next : nexts) accept(*next.sequence, 1);
  return hidden;
}

torch::Tensor ModelRunner::try_out(std::span<const Feed> feeds) {
  const UseLock::Use use(model_->use_lock());
  const auto has_several = [](const Feed& feed) { return feed.tokens.size() > 1; };
  if (store_->has_slots() && std::ranges::any_of(feeds, has_several)) {
    throw std::invalid_argument(
        "ModelRunner: several tokens, but recurrent layers cannot take any back; give one");
  }
  check(feeds);
  return forward(feeds, Pass::kDecode);
}

}  // namespace gemma
