#include <algorithm>

#include <gemma/engine/text.h>

namespace gemma {
void Text::feed(std::span<const int64_t> tokens, std::span<const ImageTokens> images) {
  for (const auto& image : images) images_.push_back({size() + image.first, image.embeddings});
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  generated_.resize(tokens_.size(), false);
}

void Text::add(int64_t token) {
  tokens_.push_back(token);
  generated_.push_back(true);
}

void Text::truncate(int64_t size) {
  tokens_.resize(static_cast<size_t>(size));
  generated_.resize(static_cast<size_t>(size));
  std::erase_if(images_, [&](const ImageTokens& image) { return image.end() > size; });
  if (done() > size) undo(size);
}

void Text::need_pending() {
  if (pending() > 0 || size() == 0) return;
  // An image goes whole.
  const bool is_image = !images_.empty() && images_.back().end() == size();
  undo(is_image ? images_.back().first : size() - 1);
}

// Where the window is gone, all goes through the model again.
void Text::undo(int64_t size) {
  if (sequence->can_truncate(size)) {
    sequence->truncate(size);
  } else {
    sequence.reset();
  }
}

int64_t Text::prompt_size() const {
  return std::ranges::find(generated_, true) - generated_.begin();
}

bool Text::is_inside_image(int64_t index) const {
  return std::ranges::any_of(
      images_, [&](const auto& image) { return image.first < index && index < image.end(); });
}

int64_t Text::pending_prompt() const {
  const auto begin = generated_.begin() + done();
  return std::find(begin, generated_.end(), true) - begin;
}

int64_t Text::part(int64_t most) const {
  const auto begin = done();
  auto end = begin + std::min(most, pending_prompt());
  for (const auto& image : images_) {
    if (image.first >= begin && image.first < end && image.end() > end) end = image.first;
  }
  return end - begin;
}

std::vector<ImageTokens> Text::images_of(int64_t count) const {
  std::vector<ImageTokens> found;
  for (const auto& image : images_) {
    if (image.first < done() || image.first >= done() + count) continue;
    found.push_back({image.first - done(), image.embeddings});
  }
  return found;
}

Text Text::fork() const {
  Text other;
  other.tokens_ = tokens_;
  other.generated_ = generated_;
  other.images_ = images_;
  if (sequence) other.sequence = sequence->fork();
  return other;
}

}  // namespace gemma
