#pragma once

#include <cstddef>
#include <list>
#include <mutex>
#include <optional>
#include <string>

#include <gemma/generate/prompt_tokens.h>

namespace gemma::server {

/// What images became, by their files, which are compared in full: no other image is taken for one.
/// Those that were not asked for longest are forgotten first. From any thread.
class ImageCache {
 public:
  /// Of files and embeddings together.
  explicit ImageCache(size_t most_bytes) : most_bytes_(most_bytes) {}

  std::optional<gemma::PromptTokens> find(const std::string& file);
  void insert(const std::string& file, const gemma::PromptTokens& tokens);

 private:
  struct Entry {
    std::string file;
    gemma::PromptTokens tokens;
    size_t bytes;
  };

  const size_t most_bytes_;
  std::mutex mutex_;
  std::list<Entry> entries_;  // The one that was asked for last comes first.
  size_t bytes_ = 0;
};

}  // namespace gemma::server
