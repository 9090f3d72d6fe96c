#include <algorithm>

#include <gemma/server/image_cache.h>

namespace gemma::server {

std::optional<gemma::PromptTokens> ImageCache::find(const std::string& file) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(entries_, file, &Entry::file);
  if (found == entries_.end()) return std::nullopt;
  entries_.splice(entries_.begin(), entries_, found);
  return found->tokens;
}

void ImageCache::insert(const std::string& file, const gemma::PromptTokens& tokens) {
  auto bytes = file.size() + tokens.ids.size() * sizeof(int64_t);
  for (const auto& image : tokens.images) bytes += image.embeddings.storage().nbytes();
  const std::lock_guard lock(mutex_);
  if (bytes > most_bytes_ || std::ranges::find(entries_, file, &Entry::file) != entries_.end()) {
    return;
  }
  entries_.push_front({.file = file, .tokens = tokens, .bytes = bytes});
  for (bytes_ += bytes; bytes_ > most_bytes_; entries_.pop_back()) bytes_ -= entries_.back().bytes;
}

}  // namespace gemma::server
