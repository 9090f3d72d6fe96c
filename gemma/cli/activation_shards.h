#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gemma/models/activations.h>

namespace gemma::cli {

/// The values of some texts, one after another.
class ActivationShard {
 public:
  /// `dtype`: what values become; none: they stay as they are.
  explicit ActivationShard(std::optional<at::ScalarType> dtype) : dtype_(dtype) {}

  void add(int64_t text, std::span<const int64_t> tokens, Activations::Values values);
  int64_t tokens() const { return std::ssize(token_ids_); }
  int64_t texts() const { return texts_; }

  /// "token_ids", "text" and "position", int64 [N], and each point: [N, ...], or "POINT/TEXT",
  /// [H, T, T], for each text where the values are of pairs of tokens. A file is replaced.
  void write_safetensors(const std::filesystem::path& path) const;
  /// The same as a directory of files KEY.npy, in float32 what is bfloat16, which NumPy lacks.
  void write_npy(const std::filesystem::path& path) const;

 private:
  // A tensor is made when it is written: what is in memory is one of them more than the values.
  template <typename Use>
  void for_each(const Use& use) const;

  std::optional<at::ScalarType> dtype_;
  int64_t texts_ = 0;
  std::vector<int64_t> token_ids_, text_, position_;
  std::map<std::string, std::vector<at::Tensor>> parts_;
};

/// A directory of shards and an index.json that says which texts they hold.
class ActivationDirectory {
 public:
  /// Makes the directory, or goes on with what is there. `run` is what the index says of the run.
  /// Throws std::runtime_error when another run writes there, or the index is not one of `run`.
  ActivationDirectory(const std::filesystem::path& path, nlohmann::ordered_json run);
  ~ActivationDirectory();
  ActivationDirectory(const ActivationDirectory&) = delete;
  ActivationDirectory& operator=(const ActivationDirectory&) = delete;

  /// The texts in shards, which are the first ones.
  int64_t texts_done() const { return texts_done_; }

  /// The next texts; what a run that was killed left of them is replaced.
  void write(const ActivationShard& shard, bool as_npy);

 private:
  void read_index();
  void write_index() const;

  std::filesystem::path path_;
  int lock_;
  nlohmann::ordered_json index_;
  int64_t texts_done_ = 0;
};

}  // namespace gemma::cli
